"""Replay: events of a file through a pipeline at the pace of their event times, with everything measured."""
