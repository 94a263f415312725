"""Start and end processes with all that they started themselves (Linux tells who belongs to whom; elsewhere only the process is ended)."""

import contextlib
import os
import signal
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

ONE_THREAD = {  # variables under which a worker computes with one thread: there are as many workers as processors
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Signals that ask for an end wait until the block is over; a process started in it begins with them held, too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _POLITE)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_tree(process: BaseProcess) -> None:
    """Kill a process, and the programs that it has running, at once."""
    if process.pid is None:
        return
    below = descendants(process.pid)  # before it dies: they get another parent then
    process.kill()
    _kill(below)
    process.join()


def end_children(pid: int) -> None:
    """Kill the programs that a process has running, at once."""
    _kill(descendants(pid))


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those started by them."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(status.parent.name))
    found: list[int] = []
    open_ends = [pid]
    while open_ends:
        inner = children.get(open_ends.pop(), [])
        found += inner
        open_ends += inner
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
