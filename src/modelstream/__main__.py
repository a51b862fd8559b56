"""``python -m modelstream``."""

from modelstream.streams.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
