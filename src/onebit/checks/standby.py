"""A process that stands by with all checks loaded, and forks one that may crash for each task.

    python -m onebit.checks.standby

To load torch takes seconds, a fork none. Requests come in as lines of JSON, the arguments of
`answer`; exit statuses go out as lines. It ends when nobody is left who could ask.
"""

import atexit
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

#: Bytes that a learner's C may print, and that any file it leaves may hold.
MOST_WRITTEN = 1 << 20
LINE_BY_LINE = 1  # _IOLBF of <stdio.h>


class Standby:
    """The process, started at the first request and ended with the one that asks."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, **request: Any) -> int:
        """Send a request and return the exit status: negative is the signal that ended it."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                # A session of its own, so that an interrupt at the keyboard is for us to handle.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "onebit.checks.standby"], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True, start_new_session=True,
                )  # fmt: skip
                atexit.register(_end, self._process)
            asked, told = self._process.stdin, self._process.stdout
            assert asked is not None and told is not None
            try:
                print(json.dumps(request), file=asked, flush=True)
                if status := told.readline():
                    return int(status)
                raise RuntimeError(f"{self._process.args!r} ended before it answered")
            except BaseException:  # or its answer would be taken for that to the next request
                _end(self._process)
                raise


def _end(process: subprocess.Popen[str]) -> None:
    """End the process and the one that it forked."""
    atexit.unregister(_end)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def serve() -> None:
    """Fork a child for each request, and write how it ended."""
    from onebit.checks.isolated import answer
    from onebit.checks.registry import exercises

    exercises()
    for line in sys.stdin:
        request = json.loads(line)
        patience = request.pop("patience")
        child = os.fork()
        if child == 0:
            _become(answer, **request)
        print(_ended(child, patience), flush=True)


def _ended(child: int, patience: float) -> int:
    """Wait until a child ends, and end it when it has waited too long for something itself."""
    deadline = time.monotonic() + patience
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def _become(run: Any, folder: str, environment: dict[str, str], **arguments: Any) -> None:
    """Run in a child, whose output goes to files of the folder, and end the child."""
    status = 1
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(environment)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN, MOST_WRITTEN))
        libc = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(libc, "__stdoutp" if sys.platform == "darwin" else "stdout")
        # What printf wrote before a crash is what one looks for after it.
        libc.setvbuf(stdout, None, LINE_BY_LINE, 0)
        run(log=Path(folder) / "log", **arguments)
        libc.fflush(None)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
