"""Arrival delays of flights out of New York: real events, a feature function and three trained ONNX models."""
