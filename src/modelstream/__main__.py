"""``python -m modelstream``, and the command ``modelstream``."""

import os
import signal

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    # While half a second of imports goes on there is nothing to clean up, and their traceback tells nobody anything.
    # A shell script's background command is not to hear of Ctrl-C at all.
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from modelstream.streams.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
