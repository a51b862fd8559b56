"""``modelstream dlq redrive``: dead letters sent back to the source topic."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from modelstream.streams.cli.common import broker_option, pipeline_argument, set_option
from modelstream.streams.cli.dlq_options import DeadLetterTopics, counting, filter_options, find_topics, nothing, say
from modelstream.streams.cli.dlq_text import as_table, printable
from modelstream.streams.cli.progress import show_progress
from modelstream.streams.dead_letter_reading import Letter, LetterFilter, read_letters
from modelstream.streams.redrive import Redriver
from modelstream.streams.redrive_plan import plan_redrive
from modelstream.streams.wording import counted

__all__ = ["redrive_letters"]


@click.command(
    "redrive",
    short_help="Send them back to the source topic, each once.",
    epilog="""\b
Examples:
  modelstream dlq redrive pipeline.yaml --broker localhost:9092 --dry-run
  modelstream dlq redrive pipeline.yaml --reason operator_failed --since 2h
  modelstream dlq redrive pipeline.yaml -n 10
""",
)
@pipeline_argument
@broker_option
@set_option
@filter_options
@click.option("-n", "--number", type=click.IntRange(min=1), metavar="N", help="Send the first N of them.")
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    metavar="N",
    default=5,
    show_default=True,
    help="Leave events that failed N times.",
)
@click.option("--again", is_flag=True, help="Also letters that were redriven already.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing.")
@click.option("--no-progress", is_flag=True, help="Show only the last line.")
def redrive_letters(
    pipeline: Path,
    broker: str | None,
    overrides: tuple[str, ...],
    wanted: LetterFilter,
    number: int | None,
    max_attempts: int,
    again: bool,
    dry_run: bool,
    no_progress: bool,
) -> None:
    """Send dead letters of PIPELINE back to its source topic, each once.

    Key, value, headers, partition and order are the original ones. An event that fails again becomes a new
    dead letter with one more attempt. Ctrl-C is safe: what was sent is marked, and the next redrive sends the rest.
    """
    paths = ("source.topic", "sink.dead_letter")
    topics = find_topics(pipeline, broker, overrides, *paths, wanted=wanted, writes=() if dry_run else paths)
    run = _Redrive(topics, wanted, number, max_attempts, again, progress=not no_progress)
    if dry_run:
        run.rehearse()
    else:
        run.send()


class _Redrive:
    """One run of the command."""

    def __init__(
        self,
        topics: DeadLetterTopics,
        wanted: LetterFilter,
        number: int | None,
        max_attempts: int,
        again: bool,
        progress: bool,
    ) -> None:
        self._topics = topics
        self._wanted = wanted
        self._number = number
        self._max_attempts = max_attempts
        self._again = again
        self._progress = progress
        self._left: Counter[str] = Counter()

    def rehearse(self) -> None:
        """Print what would be sent."""
        letters = self._letters()
        if letters:
            click.echo("\n".join(as_table(letters, time.time(), ("TO", self._target))))
        say(f"would redrive {counted(len(letters), 'dead letter')} to {self._topics.source}; nothing was sent")
        self._say_left()

    def send(self) -> None:
        """Send, and say how much."""
        topics, started = self._topics, time.monotonic()
        redriver = Redriver(topics.settings, topics.dead, topics.source, topics.n_partitions[topics.source])
        try:
            # Entered before reading: what another redrive had under way is settled then.
            with redriver:
                letters = self._letters()
                if letters:
                    self._send(redriver, letters)
        except BaseException:
            say(f"stopped: {self._sent(redriver, started)}")
            raise
        self._left += redriver.left
        if letters or self._left:
            say(self._sent(redriver, started))
        self._say_left()

    def _send(self, redriver: Redriver, letters: list[Letter]) -> None:
        if redriver.no_transactions is not None:
            say(
                f"no transactions on {self._topics.settings.bootstrap} ({redriver.no_transactions}): "
                "if this is killed, some letters may be sent twice"
            )
        with show_progress("redriven", self._progress) as advance, _ctrl_c_held() as raise_ctrl_c:

            def on_progress(n_sent: int) -> None:
                advance(n_sent, n_sent / len(letters))
                raise_ctrl_c()

            redriver.send(letters, on_progress)

    def _letters(self) -> list[Letter]:
        topics = self._topics
        with counting("read", self._progress) as on_progress:
            letters = read_letters(
                topics.settings, topics.dead, self._wanted, redriven=self._again, on_progress=on_progress
            )
        if not letters:
            say(nothing(topics, self._wanted))
        plan = plan_redrive(letters, topics.source, self._max_attempts, self._number)
        self._left += plan.left
        return plan.send

    def _target(self, letter: Letter) -> str:
        assert letter.source is not None
        if letter.source.partition < self._topics.n_partitions[self._topics.source]:
            return f"{self._topics.source}[{letter.source.partition}]"
        return f"{self._topics.source}, where its key belongs: there is no partition {letter.source.partition} any more"

    def _sent(self, redriver: Redriver, started: float) -> str:
        seconds = time.monotonic() - started
        return f"redrove {counted(redriver.n_sent, 'dead letter')} to {self._topics.source} in {seconds:.1f} s"

    def _say_left(self) -> None:
        for why, n_letters in self._left.most_common():
            say(f"left {n_letters:,}: {printable(why)}")


@contextmanager
def _ctrl_c_held() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until it is asked for: so that it comes between two transactions. A second one comes at once."""
    pressed = False

    def on_ctrl_c(signal_number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def raise_ctrl_c() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        yield raise_ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)
