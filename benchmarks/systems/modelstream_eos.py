"""modelstream under exactly-once: the same pipeline, with outputs and offsets in transactions."""

from __future__ import annotations

from benchmarks.systems.modelstream import main

if __name__ == "__main__":
    main("--set=delivery=exactly_once")
