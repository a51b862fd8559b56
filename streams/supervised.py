"""A server process that never outlives the process that started it, whatever ends that.

`EmbeddedBroker` and the test harness start real servers. A context manager ends them after an exception, but not after
SIGKILL, and PR_SET_PDEATHSIG set on the server itself would be wrong twice: it needs Python code between fork and
exec (``preexec_fn``), which can deadlock in a process with threads, as librdkafka makes them; and it fires when the
*thread* that forked ends, not when the process does. So a supervisor stands between the two: this very file run as a
script, one thread, standard library only. It ends the server when its own parent has gone, and the kernel ends the
server when the supervisor goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["SupervisedProcess"]

#: How often the supervisor looks whether its parent and its server still live; 20 looks cost about 1 ms of CPU.
_POLL_S = 0.1
#: How long the supervisor may take to end a server beyond the server's own grace.
_STOP_MARGIN_S = 10.0


class SupervisedProcess:
    """A running server that ends with this process.

    The server runs in a session of its own, so that Ctrl-C in the terminal reaches this process alone, which can then
    end things in their order.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    folder : Path
        The server's own, and its working directory. Removed if this process dies without stopping the server.
    log : Path
        File that takes the server's output.
    env : mapping of str to str, optional
        Environment of the server; that of this process by default.
    grace_s : float
        Seconds between SIGTERM and SIGKILL when it is stopped; 0 kills at once.
    cwd : Path, optional
        Its working directory instead of `folder`.

    Attributes
    ----------
    pid : int or None
        Process id of the server; None where it could not be started.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     server = SupervisedProcess(["sleep", "60"], folder=Path(folder), log=Path(folder, "log"))
    ...     was_running = server.running
    ...     server.stop()
    >>> was_running, server.running
    (True, False)
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        grace_s: float = 0.0,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        self._grace_s = grace_s
        # -I -S: no site-packages, so that the supervisor starts in some 20 ms and stays at 12 MB.
        script = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
        self._supervisor = subprocess.Popen(
            [*script, str(os.getpid()), str(folder), str(log), str(grace_s), str(cwd or folder), *command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as answer:
            line = answer.readline()
        self.pid = int(line) if line else None

    @property
    def running(self) -> bool:
        """Whether the server still runs."""
        return self._supervisor.poll() is None

    def wait(self, timeout_s: float = 0.0) -> int | None:
        """Return the server's exit code, -N after signal N; None if it still runs after so many seconds.

        That of a server which was stopped by `stop` is lost.
        """
        try:
            code = self._supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return code if code < 128 else code - 256

    def log_tail(self, n_lines: int = 40) -> str:
        """Return the last lines of the server's output."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-n_lines:])
        return ""

    def stop(self) -> None:
        """End the server and wait until it has gone. Stopping twice does nothing."""
        self._supervisor.terminate()
        self._wait()

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would, and wait until it has gone."""
        if self.pid is not None and self.running:
            os.kill(self.pid, signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        try:
            self._supervisor.wait(self._grace_s + _STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()


def _supervise(parent: int, folder: Path, log: Path, grace_s: float, cwd: Path, command: Sequence[str]) -> int:
    """Run the command until it ends, SIGTERM comes, or the parent has gone; return its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with log.open("ab") as output:
        try:
            server = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_supervisor,  # safe here: this process has one thread
            )
        except OSError as error:
            output.write(f"{command[0]}: {error}\n".encode())
            return 127
    try:
        print(server.pid, flush=True)
        while server.poll() is None and os.getppid() == parent:
            time.sleep(_POLL_S)
    finally:
        _end(server, grace_s)
    # It ends by itself now; what is raised while Python ends would be written to stderr.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() != parent:
        shutil.rmtree(folder, ignore_errors=True)
    return server.returncode


def _die_with_supervisor() -> None:
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _end(server: subprocess.Popen[bytes], grace_s: float) -> None:
    if server.poll() is None and grace_s > 0:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(grace_s)
    if server.poll() is None:
        server.kill()
        server.wait()


if __name__ == "__main__":
    parent, folder, log, grace_s, cwd = sys.argv[1:6]
    sys.exit(_supervise(int(parent), Path(folder), Path(log), float(grace_s), Path(cwd), sys.argv[6:]))
