"""A worker whose watchdog gives a partition two seconds, where others have a minute."""

from __future__ import annotations

from support.streams import KnownStream

from modelstream.streams.worker_process import WorkerProcess

_SCRIPT = """\
import functools

from modelstream.models.errors import ModelStreamError
from modelstream.streams import app as engine, worker_limits
from modelstream.streams.pump import Pump
from modelstream.streams.settings import EngineLimits
from modelstream.streams.worker import exit_process, log_to_stderr, run_worker

worker_limits.EngineLimits = functools.partial(EngineLimits, stall_timeout_s={stall_timeout_s})
{more}
app = engine.app_from_environment()
app.conf.web_port, app.web_port_is_chosen = {port}, True
log_to_stderr("info")
code = 0
try:
    run_worker(app)
except ModelStreamError as error:
    print("error:", error)
    code = 1
exit_process(code)
raise SystemExit(code)
"""


def impatient(stream: KnownStream, more: str = "", *, stall_timeout_s: float = 2.0) -> WorkerProcess:
    """Return a worker that gives a partition so long, on a web port of its own, and runs some more code before."""
    script = stream.folder / "impatient.py"
    worker = stream.script(script)
    script.write_text(_SCRIPT.format(more=more, port=worker.port, stall_timeout_s=stall_timeout_s), encoding="utf-8")
    return worker
