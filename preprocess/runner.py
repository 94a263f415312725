"""Runs clips through steps: what a run is asked, the loop that gives tasks to workers, and workers that are processes of this machine."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import connection as mpc
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil
from tqdm import tqdm

from latentsync.errors import InputError, LatentSyncError, OutputError, first_line
from latentsync.media.files import VIDEO_EXTENSIONS
from latentsync.media.probe import probe
from preprocess.manifest import CRASHED, FAILED, NOT_FINAL, TIMED_OUT, Manifest, RawFile, Waiting, remove_file, reopen
from preprocess.step import RAW, ClipFile, ClipProcessor, Kept, Options, Outcome, Rejected, Step, StepDefinition

logger = logging.getLogger("preprocess.pipeline")
BROKEN = "broken"  # the reason of the first step for files that cannot be decoded
FAILURES_IN_A_ROW = 10  # clips that fail one after the other at a step before the run is given up: it is not the clips then
NO_WORKER_SECONDS = 300.0  # that clips wait while nobody can work on them before the run is given up
OPENING_SECONDS = 900.0  # to start a process and load the models of a step, from a slow disk too
INTERRUPTED = 130  # the shell's own exit code for Ctrl-C
ONE_THREAD = {  # variables under which a worker computes with one thread: there are as many workers as processors
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_SECONDS = 5.0  # in which a worker that is asked to end may clean up
_TICK = 0.5  # seconds between two checks of the clock
_AT_ONCE = 64  # clips of a step that are held in memory, and the least that may wait between two steps
_SCAN_AT_ONCE = 256


@dataclass(frozen=True)
class PipelineConfig:
    """What a run is asked to do.

    Attributes:
        steps: in order.
        input: folder of raw files, only read.
        output: folder that gets the steps' folders and the manifest.
        options: of the steps; those that are missing have their defaults.
        checkpoints: folder of weight files.
        limit: of raw files, those that were found first; None for all.
        delete_broken: remove raw files that cannot be decoded.
        remove_intermediate: remove files of steps before the last as soon as the next step is through with them.
        try_again: give clips that timed out or crashed in a run before another chance.
        arguments: what the manifest notes about the run.
        show_progress: whether a line tells how far it is.
    """

    steps: Sequence[StepDefinition]
    input: Path
    output: Path
    options: Options = field(default_factory=dict)
    checkpoints: Path = Path()
    limit: int | None = None
    delete_broken: bool = False
    remove_intermediate: bool = False
    try_again: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    show_progress: bool = False


@dataclass(frozen=True)
class Task:
    """One clip for one step."""

    number: int  # of the clip's row in the manifest
    step: int  # index into the steps of the run
    clip: ClipFile


Failure = Literal["failed", "crashed", "timed out", "lost", "not opened"]
_TRIES = {"crashed": 2, "lost": 4, "not opened": 2}  # how often a clip is tried in all; other failures are final
_REASONS = {"crashed": CRASHED, "lost": CRASHED, "timed out": TIMED_OUT, "failed": FAILED}


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes:
        task: which.
        outcome: what the step made of the clip; None where it failed.
        seconds: spent by the step.
        failure: "failed": the step said that it cannot work; "crashed": its process ended; "timed out": its process was ended;
            "lost": its machine went away; "not opened": the step could not even load its models.
        why: one sentence about the failure.
    """

    task: Task
    outcome: Outcome | None
    seconds: float
    failure: Failure | None = None
    why: str = ""


class Executor(Protocol):
    """Workers somewhere; called from one thread.

    Workers may die and be replaced: for a while none may be free, and every task that was submitted still ends with a `Result`.
    """

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once. Raises LatentSyncError where no worker for it can be started any more."""
        ...

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task; a worker must be free."""
        ...

    def wait(self, seconds: float) -> Sequence[Result]:
        """What has ended; waits up to `seconds` for the first."""
        ...

    def close(self, at_once: bool) -> None:
        """End all workers; `at_once` interrupts what is at work, which is cleaned up and lost."""
        ...


class Run:
    """One run of the pipeline.

    Memory does not grow with the number of clips: each step holds at most `_AT_ONCE` that wait, the others are rows. A step does not
    run ahead of the one behind it by more than a few clips for each worker.

    Args:
        manifest: opened to write; it says what is done already.
        steps: in order.
        scan: the raw files, found as they are asked for.
        executor: the workers.
        progress: is told what happened.
        number: of this run in the manifest.
        config: what the run may do besides working.
    """

    def __init__(
        self,
        manifest: Manifest,
        steps: Sequence[Step],
        scan: Iterator[RawFile],
        executor: Executor,
        progress: "PipelineProgress",
        number: int,
        config: PipelineConfig,
    ) -> None:
        self.manifest, self.steps, self.executor, self.progress = manifest, list(steps), executor, progress
        self.number, self.config = number, config
        self.killed = 0  # processes that may have left unfinished files
        self._scan, self._scanning = scan, True
        self._sources = [RAW, *(step.name for step in steps[:-1])]  # step k works on the clips that the k-th of these kept
        self._waiting = [manifest.count_waiting(name) for name in self._sources]  # rows, in a queue or not
        self._queues: list[deque[Waiting]] = [deque() for _ in steps]
        self._running: dict[int, tuple[int, Waiting]] = {}  # row -> step and clip
        self._tries: dict[int, int] = {}
        self._failing: list[list[int]] = [[] for _ in steps]  # rows that failed since the last that did not
        self._most_between = 4 * executor.slots() + _AT_ONCE

    def work(self) -> None:
        """Work until nothing waits and nothing is at work: every clip is kept or rejected then.

        Raises LatentSyncError where a step cannot work at all, or no worker can be had any more; what is recorded until then stays.
        """
        idle_since = time.monotonic()
        while True:
            self._scan_some()
            self._submit_tasks()
            if self._running or self._scanning:
                idle_since = time.monotonic()
            elif (step := self._first_waiting()) is None:
                return
            elif time.monotonic() - idle_since > NO_WORKER_SECONDS:
                raise LatentSyncError(
                    f"Clips wait for the step {step.name}, and for {NO_WORKER_SECONDS:.0f} s there was no worker for it: make room for one "
                    "(or ask for fewer with --workers, --gpu_workers), then run this again: it goes on from there"
                )
            for result in self.executor.wait(0.0 if self._scanning else _TICK):
                self._finish(result)
            self.progress.show()

    def _scan_some(self) -> None:
        """Note some more raw files."""
        if not self._scanning:
            return
        room = _SCAN_AT_ONCE
        if self.config.limit is not None:
            room = min(room, self.config.limit - self.manifest.count_raw())
        some = list(islice(self._scan, max(0, room)))
        if not some:
            self._scanning = False
            return
        for row in self.manifest.add_raw(some, self.number):
            logger.info("A raw file has changed since it was worked on: it is worked on again")
            self._reopen(row)
        self._waiting[0] = self.manifest.count_waiting(RAW)
        self.progress.raw_files = self.manifest.count_raw()

    def _submit_tasks(self) -> None:
        """Give every free worker a task, of the latest step that has something to do."""
        for k in reversed(range(len(self.steps))):
            if k + 1 < len(self.steps) and self._waiting[k + 1] >= self._most_between:
                continue
            while self.executor.free(k) and (waiting := self._next(k)) is not None:
                self._running[waiting.number] = (k, waiting)
                self.executor.submit(Task(waiting.number, k, waiting.clip))

    def _next(self, k: int) -> Waiting | None:
        """The next clip for a step; from the manifest when its queue is empty."""
        queue = self._queues[k]
        if not queue:
            running = {number for number, (step, _) in self._running.items() if step == k}
            if self._waiting[k] > len(running):
                queue.extend(self.manifest.waiting(self._sources[k], _AT_ONCE, running, self.config.limit))
        return queue.popleft() if queue else None

    def _first_waiting(self) -> Step | None:
        """The first step that has something to do, as the manifest says; called when nothing is at work."""
        steps = zip(self._sources, self.steps, strict=True)
        return next((step for source, step in steps if self.manifest.waiting(source, 1, (), self.config.limit)), None)

    def _finish(self, result: Result) -> None:
        """Record what became of a clip, or let it be tried again."""
        number = result.task.number
        k, waiting = self._running.pop(number)
        if not self.manifest.has(number):  # a clip before it is worked on again
            return
        if result.failure is None:
            assert result.outcome is not None
            self._failing[k].clear()
            self._record(k, waiting, self._without_taken_names(k, waiting, result.outcome), result.seconds)
            return
        self.killed += result.failure in ("crashed", "timed out", "lost")
        self._tries[number] = self._tries.get(number, 0) + 1
        if self._tries[number] < _TRIES.get(result.failure, 1):
            logger.warning("%s: %s; tried again", waiting.clip.source, result.why)
            self._queues[k].appendleft(waiting)
            return
        if result.failure == "not opened":
            raise LatentSyncError(f"The step {self.steps[k].name} cannot begin ({result.why.rstrip('.')}): mend that, then run this again")
        self._record(k, waiting, [Rejected(_REASONS[result.failure], result.why)], result.seconds)
        if result.failure != "timed out":
            self._count_failure(k, number, result.why)

    def _record(self, k: int, waiting: Waiting, outcome: Outcome, seconds: float) -> None:
        self.manifest.record(waiting, self.steps[k], outcome, seconds, self.number)
        self._tries.pop(waiting.number, None)
        kept = sum(isinstance(result, Kept) for result in outcome)
        reasons = {result.reason for result in outcome if isinstance(result, Rejected)}
        self._waiting[k] -= 1
        if k + 1 < len(self.steps):
            self._waiting[k + 1] += kept
        if self.config.remove_intermediate and not reasons & NOT_FINAL:
            remove_file(self.manifest, waiting.number)
        if k == 0 and self.config.delete_broken and BROKEN in reasons:
            _delete_raw(waiting.clip.path)
        self.progress.count(self.steps[k].name, kept, outcome, first=k == 0)

    def _without_taken_names(self, k: int, waiting: Waiting, outcome: Outcome) -> Outcome:
        """The outcome; a rejection where a file of it has the name of another clip's, which was written over and is made again."""
        step = self.steps[k]
        made = [result.path for result in outcome if isinstance(result, Kept) and result.path != waiting.clip.path]
        owners = {path: owner for path in made if (owner := self.manifest.owner(step, path, waiting.number)) is not None}
        if not owners:
            return outcome
        for owner in set(owners.values()):
            self._reopen(owner)
        names = ", ".join(path.name for path in owners)
        return [Rejected("name taken", f"{step.name} gives it the name {names}, which another clip has: rename the raw file")]

    def _reopen(self, row: int) -> None:
        """Let a clip be worked on again; what the queues hold of it is forgotten."""
        reopen(self.manifest, row)
        for queue in self._queues:
            queue.clear()
        self._waiting = [self.manifest.count_waiting(name) for name in self._sources]

    def _count_failure(self, k: int, number: int, why: str) -> None:
        """Give up where clip after clip fails, and leave these clips for the next run."""
        self._failing[k].append(number)
        if len(self._failing[k]) >= FAILURES_IN_A_ROW:
            for failed in self._failing[k]:
                reopen(self.manifest, failed)
            raise LatentSyncError(
                f"The step {self.steps[k].name} failed for {FAILURES_IN_A_ROW} clips in a row, the last time so: {why.rstrip('.')}; "
                "mend that, then run this again: it goes on with these clips"
            )


def _delete_raw(path: Path) -> None:
    """Remove a raw file, as the user has asked for. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove the broken file {path} ({(error.strerror or str(error)).lower()})") from None
    logger.info("%s is broken and was removed", path)


@dataclass(eq=False)
class _Slot:
    """Room for one worker."""

    device: str
    process: BaseProcess | None = None
    pipe: mpc.Connection | None = None
    task: Task | None = None
    deadline: float = 0.0
    begun: float | None = None  # when the step began with the clip; None while it is loaded
    last_error: str = ""  # what the worker told before its end


class LocalExecutor:
    """Processes started by spawn, each when it is first needed; one that dies or is ended is replaced with the next task.

    Args:
        steps: of the run.
        workers: processes for steps that need the CPU; where there are no `devices`, for all.
        devices: a torch device for each process that steps with networks get.
        timeout: seconds that a step may spend on one clip.
    """

    def __init__(self, steps: Sequence[Step], workers: int, devices: Sequence[str], timeout: float) -> None:
        self._steps, self._timeout = list(steps), timeout
        self._context = multiprocessing.get_context("spawn")
        self._pools = {"cpu": [_Slot("cpu") for _ in range(workers)]}
        self._pools["gpu"] = [_Slot(device) for device in devices] or self._pools["cpu"]
        self._all = self._pools["cpu"] + [slot for slot in self._pools["gpu"] if slot not in self._pools["cpu"]]

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once."""
        return sum(slot.task is None for slot in self._pools[self._steps[step].device])

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        return len(self._all)

    def submit(self, task: Task) -> None:
        """Begin a task; a worker must be free."""
        slot = next(slot for slot in self._pools[self._steps[task.step].device] if slot.task is None)
        if slot.process is None or not slot.process.is_alive():
            self._start(slot)
        assert slot.pipe is not None
        slot.task, slot.begun, slot.last_error, slot.deadline = task, None, "", time.monotonic() + OPENING_SECONDS
        try:
            slot.pipe.send(task)
        except OSError:  # it has just died: `wait` finds that out
            slot.last_error = "its process had ended"

    def wait(self, seconds: float) -> list[Result]:
        """What has ended; waits up to `seconds` for the first. A task that is over its time is ended here."""
        busy = {slot.pipe: slot for slot in self._all if slot.task is not None and slot.pipe is not None}
        if not busy:
            return []
        nearest = min(slot.deadline for slot in busy.values()) - time.monotonic()
        ready = mpc.wait(list(busy), timeout=max(0.0, min(seconds, nearest)))
        results = [result for pipe in ready if (result := self._receive(busy[pipe])) is not None]
        now = time.monotonic()
        late = [slot for slot in busy.values() if slot.task is not None and slot.deadline <= now]
        return results + [self._end_late(slot) for slot in late]

    def close(self, at_once: bool) -> None:
        """End all workers; `at_once` interrupts what is at work, which is cleaned up and lost."""
        running = [slot for slot in self._all if slot.process is not None]
        for slot in running:
            assert slot.process is not None and slot.pipe is not None
            if at_once or slot.task is not None:
                slot.process.terminate()
            slot.pipe.close()  # one that waits for a task ends by this
        limit = time.monotonic() + _END_SECONDS
        for slot in running:
            assert slot.process is not None
            slot.process.join(max(0.0, limit - time.monotonic()))
            end_tree(slot.process)
            slot.process = slot.pipe = slot.task = None

    def _start(self, slot: _Slot) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._steps, slot.device), name="clips")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)  # until the process can be ended with the others
        try:
            process.start()
            slot.process, slot.pipe = process, ours
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def _receive(self, slot: _Slot) -> Result | None:
        """One message of a worker, or its end; None where the task goes on."""
        assert slot.pipe is not None
        try:
            message: Message = slot.pipe.recv()
        except (EOFError, OSError):
            return self._end_dead(slot)
        if message.kind == "begun":
            slot.begun = time.monotonic()
            slot.deadline = slot.begun + self._timeout
            return None
        if message.kind == "broken":
            slot.last_error = message.why
            return None  # its end follows
        return self._free(slot, message.outcome, message.seconds, None if message.kind == "done" else message.kind, message.why)

    def _end_dead(self, slot: _Slot) -> Result:
        """The result of a task whose process ended."""
        assert slot.process is not None
        end_tree(slot.process)
        code = slot.process.exitcode or 0
        died = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with status {code}"
        hint = " (out of memory?)" if code == -9 else ""
        return self._replace(slot, "crashed" if slot.begun is not None else "not opened", slot.last_error or died + hint)

    def _end_late(self, slot: _Slot) -> Result:
        """End a process that is over its time."""
        assert slot.process is not None and slot.task is not None
        end_tree(slot.process)
        name = self._steps[slot.task.step].name
        if slot.begun is None:
            return self._replace(slot, "not opened", f"{name} was not ready after {OPENING_SECONDS:.0f} s")
        return self._replace(slot, "timed out", f"{name} took longer than {self._timeout:g} s")

    def _replace(self, slot: _Slot, failure: Failure, why: str) -> Result:
        assert slot.pipe is not None
        slot.pipe.close()
        slot.process = slot.pipe = None
        return self._free(slot, None, 0.0 if slot.begun is None else time.monotonic() - slot.begun, failure, why)

    @staticmethod
    def _free(slot: _Slot, outcome: Outcome | None, seconds: float, failure: Failure | None, why: str) -> Result:
        assert slot.task is not None
        result = Result(slot.task, outcome, seconds, failure, why)
        slot.task = None
        return result


@dataclass(frozen=True)
class Message:
    """What a worker sends: that it begins with the clip, that it is done, or that it cannot."""

    kind: Literal["begun", "done", "failed", "not opened", "broken"]
    outcome: Outcome | None = None
    seconds: float = 0.0
    why: str = ""


def serve(connection: mpc.Connection, steps: Sequence[Step], device: str) -> None:
    """Main function of a worker: answers `Task`s on `connection` until it is closed.

    Ctrl-C reaches every process of a terminal: the parent alone decides, and its SIGTERM ends a clip without leaving an unfinished file.
    An error that no step declares ends the process, after a message about it: what state it left behind is not known.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
    threading.Thread(target=_end_with_the_parent, name="parent", daemon=True).start()
    processors: dict[int, ClipProcessor] = {}
    try:
        while True:
            try:
                task: Task = connection.recv()
            except EOFError:
                return
            _answer(connection, task, steps[task.step], processors, device)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the clip at work has been cleaned up on the way here
    except BaseException as error:
        connection.send(Message("broken", why=f"{type(error).__name__}: {first_line(error)}"))
        raise


def _answer(connection: mpc.Connection, task: Task, step: Step, processors: dict[int, ClipProcessor], device: str) -> None:
    """One task: open its step if need be, work, tell."""
    if task.step not in processors:
        try:
            processors[task.step] = step.open(device)
        except LatentSyncError as error:
            connection.send(Message("not opened", why=str(error)))
            return
    connection.send(Message("begun"))
    begun = time.monotonic()
    try:
        outcome: Outcome = process_clip(processors[task.step], task, step)
    except LatentSyncError as error:
        connection.send(Message("failed", None, time.monotonic() - begun, str(error)))
        return
    connection.send(Message("done", outcome, time.monotonic() - begun))


def process_clip(processor: ClipProcessor, task: Task, step: Step) -> Outcome:
    """What a step makes of a clip, checked. Raises LatentSyncError where the step did not do what a step must."""
    clip = task.clip
    if task.step == 0 and clip.path.suffix.lower() not in VIDEO_EXTENSIONS:  # it may be anything: is it media at all?
        try:
            probe(clip.path)
        except InputError as error:
            return [Rejected("not a video", str(error))]
    try:
        outcome = list(processor(clip, step.folder))
    except InputError as error:
        return [Rejected("unusable", str(error))]
    paths = [result.path for result in outcome if isinstance(result, Kept)]
    for path in paths:
        if path != clip.path and not path.is_relative_to(step.folder):
            raise LatentSyncError(f"{step.name} wrote {path}, which is not in its folder {step.folder}: mend the step")
        if not path.is_file():
            raise LatentSyncError(f"{step.name} says that it wrote {path}, and there is no such file: mend the step")
    if len(set(paths)) < len(paths):
        raise LatentSyncError(f"{step.name} wrote one file twice for {clip.name}: mend the step")
    return outcome or [Rejected("nothing left", f"{step.name} found nothing in it to keep")]


def _end_with_the_parent() -> None:
    """End this process once the one that gives it tasks was killed: nobody would receive a result."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    _kill(descendants(os.getpid()))
    os._exit(INTERRUPTED)


def descendants(pid: int) -> list[psutil.Process]:
    """Processes that a process started, and those started by them."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def end_tree(process: BaseProcess) -> None:
    """Kill a process, and the programs that it has running, at once."""
    if process.pid is None:
        return
    below = descendants(process.pid)  # before it dies: they get another parent then
    process.kill()
    _kill(below)
    process.join()


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


_SHOW_EVERY = 1.0  # seconds between two lines in a terminal
_LOG_EVERY = 60.0  # ... and in a file
_GPU_EVERY = 15.0  # seconds between two questions to the driver


class PipelineProgress:
    """A line that tells how far a run is, and its numbers for the manifest.

    Args:
        steps: names in order.
        shown: whether anything is written.
    """

    def __init__(self, steps: Sequence[str], shown: bool) -> None:
        self.raw_files = 0  # found so far
        self.works = 0  # clips that a step was through with, in this run
        self.raw_hours = 0.0  # of video that went into the first step, in this run
        self._counts = {name: [0, 0] for name in steps}  # kept, rejected
        self._start, self._cpu_start = time.monotonic(), psutil.cpu_times()
        self._shown_at = self._gpu_at = 0.0
        self._gpu = ""
        self._every = _SHOW_EVERY if sys.stderr.isatty() else _LOG_EVERY
        self._bar = tqdm(unit="clip", disable=not shown, miniters=1, mininterval=self._every, bar_format="{desc}")

    def count(self, step: str, kept: int, outcome: Outcome, first: bool) -> None:
        """A step is through with a clip."""
        self.works += 1
        self._counts[step][0] += kept
        self._counts[step][1] += len(outcome) - kept
        if first:
            self.raw_hours += sum(float(result.facts.get("duration") or 0.0) for result in outcome) / 3600

    def show(self) -> None:
        """Write the line, if it is time."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown_at < self._every:
            return
        self._shown_at = now
        if now - self._gpu_at > _GPU_EVERY:
            self._gpu, self._gpu_at = gpu_use(), now
        self._bar.set_description_str(self.line())

    def line(self) -> str:
        """How far the run is, in one line."""
        counts = " ".join(f"{name} {kept}/{rejected}" for name, (kept, rejected) in self._counts.items() if kept or rejected)
        idle, seconds = self.cpu_idle(), max(self.seconds(), 1e-9)
        parts = [
            f"{self.raw_files} files, {self.works} works",
            f"{self.works / seconds:.2f} clips/s",
            f"{3600 * self.raw_hours / seconds:.2f} h video/h",
            *([f"CPU {100 - 100 * idle:.0f} %"] if idle is not None else []),
            *([self._gpu] if self._gpu else []),
            f"kept/rejected: {counts or 'none yet'}",
        ]
        return " | ".join(parts)

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._start

    def cpu_idle(self) -> float | None:
        """Share of the time since the run began in which a processor had nothing to do, or waited for a disk; None right after it."""
        now, start = psutil.cpu_times()._asdict(), self._cpu_start._asdict()
        spent = {name: now[name] - start[name] for name in now if not name.startswith("guest")}  # guests count as users already
        total = sum(spent.values())
        return (spent["idle"] + spent.get("iowait", 0.0)) / total if total > 0 else None

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()


def gpu_use() -> str:
    """How busy the GPUs of this machine are, as their driver tells: "GPU 87 91 %"; "" where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or shutil.which("nvidia-smi") is None:
        return ""
    question = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"GPU {' '.join(answer.stdout.split())} %"
