"""Replay: events through a pipeline at the pace of their event times, measured; and a stream captured and compared."""

from modelstream.streams.replay.result import ReplayResult

__all__ = ["ReplayResult"]
