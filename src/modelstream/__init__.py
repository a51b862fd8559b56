"""modelstream: a stream-processing inference engine on Kafka, Faust and ONNX Runtime."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("modelstream")
