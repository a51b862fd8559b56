"""Replay: events of a file through a pipeline at the pace of their event times, with everything measured."""

from modelstream.streams.replay.result import ReplayResult

__all__ = ["ReplayResult"]
