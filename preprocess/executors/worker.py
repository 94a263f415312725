"""A process that works: it opens steps when they are first needed, keeps them open, and answers one task after the other."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Literal

from latentsync.errors import InputError, LatentSyncError, first_line
from preprocess.executors.base import Task
from preprocess.executors.processes import end_children
from preprocess.plan import Step
from preprocess.stage import Kept, Outcome, Rejected, Worker

INTERRUPTED = 130  # the shell's own exit code for Ctrl-C
UNUSABLE = "unusable"  # reason of clips that a step refuses without a reason of its own
_GRACE = 5.0  # seconds to clean up in after the process that gives the work has died


@dataclass(frozen=True)
class Message:
    """What a worker tells: that it begins with the clip, that it is done, or that it cannot."""

    kind: Literal["begun", "done", "failed", "not opened", "broken"]
    outcome: Outcome | None = None
    seconds: float = 0.0
    why: str = ""


def serve(connection: Connection, steps: Sequence[Step], device: str) -> None:
    """Main function of the process: answers `Task`s on `connection` until it is closed.

    An error that no step declares ends the process, after a word about it: what state it left behind is not known.
    """
    _settle()
    workers: dict[int, Worker] = {}
    try:
        while (task := _next(connection)) is not None:
            _answer(connection, task, steps[task.step], workers, device)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the clip in work has been cleaned up on the way here
    except BaseException as error:
        connection.send(Message("broken", why=f"{type(error).__name__}: {first_line(error)}"))
        raise


def _next(connection: Connection) -> Task | None:
    try:
        return connection.recv()
    except EOFError:
        return None


def _answer(connection: Connection, task: Task, step: Step, workers: dict[int, Worker], device: str) -> None:
    """One task: open its step if need be, work, tell."""
    if task.step not in workers:
        try:
            workers[task.step] = step.stage.open(device if step.stage.device == "gpu" else "cpu")
        except LatentSyncError as error:
            connection.send(Message("not opened", why=str(error)))
            return
    connection.send(Message("begun"))
    begun = time.monotonic()
    try:
        outcome: Outcome = work(workers[task.step], task, step)
    except LatentSyncError as error:
        connection.send(Message("failed", None, time.monotonic() - begun, str(error)))
        return
    connection.send(Message("done", outcome, time.monotonic() - begun))


def work(worker: Worker, task: Task, step: Step) -> Outcome:
    """What a step makes of a clip, checked. Raises LatentSyncError where the step did not do what a step must."""
    try:
        outcome = list(worker(task.clip, step.folder))
    except InputError as error:
        return [Rejected(UNUSABLE, str(error))]
    for result in outcome:
        if isinstance(result, Kept) and result.path != task.clip.path and not result.path.is_relative_to(step.folder):
            raise LatentSyncError(f"{step.name} wrote {result.path}, which is not in its folder {step.folder}: mend the step")
        if isinstance(result, Kept) and not result.path.is_file():
            raise LatentSyncError(f"{step.name} says that it wrote {result.path}, and there is no such file: mend the step")
    if len({result.path for result in outcome if isinstance(result, Kept)}) < sum(isinstance(result, Kept) for result in outcome):
        raise LatentSyncError(f"{step.name} wrote one file twice for {task.clip.name}: mend the step")
    return outcome or [Rejected("nothing left", f"{step.name} found nothing in it to keep")]


def _settle() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides, and its word ends a clip without leaving a stump."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    threading.Thread(target=_end_with_the_parent, name="parent", daemon=True).start()


def _end_with_the_parent() -> None:
    """Whoever gives the work was killed: nobody would hear the result."""
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    end_children(os.getpid())
    os._exit(INTERRUPTED)
