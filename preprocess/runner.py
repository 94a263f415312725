"""Runs clips through steps: the loop that gives tasks to workers, and workers that are processes of this machine."""

import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import connection as mpc
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import psutil
from tqdm import tqdm

from latentsync.cli import INTERRUPTED
from latentsync.errors import InputError, LatentSyncError, OutputError, first_line
from latentsync.media.files import VIDEO_EXTENSIONS
from latentsync.media.probe import probe
from preprocess.manifest import CRASHED, FAILED, NOT_FINAL, TIMED_OUT, Manifest, RawFile, remove_file, reopen
from preprocess.step import RAW, ClipFile, ClipProcessor, Kept, Options, Outcome, Rejected, Step, StepDefinition

logger = logging.getLogger("preprocess.pipeline")
BROKEN = "broken"  # the reason of the first step for files that cannot be decoded
FAILURES_IN_A_ROW = 10  # clips that fail one after the other at a step before the run is given up: the clips are not the cause then
NO_WORKER_SECONDS = 300.0  # that clips wait without any worker before the run is given up
OPENING_SECONDS = 900.0  # to start a process and load the models of a step, from a slow disk too
ONE_THREAD = {  # variables under which a worker computes with one thread: there are as many workers as processors
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_SECONDS = 5.0  # in which a worker that is asked to end may clean up
_TICK = 0.5  # seconds between two checks of the clock
_LEAST_BETWEEN = 64  # clips that may wait between two steps, besides four for each worker
_SCAN_AT_ONCE = 256


@dataclass(frozen=True)
class PipelineConfig:
    """What a run is asked to do."""

    steps: Sequence[StepDefinition]  # in order
    input: Path  # folder of raw files, only read
    output: Path  # folder that gets the steps' folders and the manifest
    options: Options = field(default_factory=dict)  # of the steps; those that are missing have their defaults
    checkpoints: Path = Path()  # folder of weight files
    limit: int | None = None  # of raw files, those that were found first; None for all
    delete_broken: bool = False  # remove raw files that cannot be decoded
    remove_intermediate: bool = False  # remove files of steps before the last as soon as the next step is through with them
    try_again: bool = False  # process clips again that timed out or crashed in a run before
    arguments: Mapping[str, Any] = field(default_factory=dict)  # what the manifest notes about the run
    show_progress: bool = False


@dataclass(frozen=True)
class Task:
    """One clip for one step."""

    number: int  # of the clip's row in the manifest
    step: int  # index into the steps of the run
    clip: ClipFile


# The step says that it cannot work, its process ended or was ended, its machine went away, its models could not be loaded.
Failure = Literal["failed", "crashed", "timed out", "lost", "not opened"]
_TRIES = {"crashed": 2, "lost": 4, "not opened": 2}  # how often a clip is tried in all; other failures are final
_REASONS = {"crashed": CRASHED, "lost": CRASHED, "timed out": TIMED_OUT, "failed": FAILED}


@dataclass(frozen=True)
class Result:
    """What became of a task."""

    task: Task
    outcome: Outcome  # of the step for the clip; nothing where it failed
    seconds: float  # spent by the step
    failure: Failure | None = None
    why: str = ""  # one sentence about the failure


class Executor:
    """Workers somewhere, called from one thread; those that die are replaced, and every task that was submitted ends with a `Result`."""

    def __init__(self, steps: Sequence[Step], cpu: list[Any], gpu: list[Any], timeout: float) -> None:
        """Takes slots for steps that need the CPU, and for those with networks; where there are none of these, the first do all."""
        self._steps, self._timeout = list(steps), timeout
        self._pools, self._all = {"cpu": cpu, "gpu": gpu or cpu}, [*cpu, *gpu]

    def _free(self, step: int) -> list[Any]:
        return [slot for slot in self._pools[self._steps[step].device] if slot.task is None]

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once. Raises LatentSyncError where no worker for it can be started any more."""
        return len(self._free(step))

    def slots(self) -> int:
        """How many tasks can run at the same time."""
        return len(self._all)

    def submit(self, task: Task) -> None:
        """Begin a task; a worker must be free."""

    def wait(self, seconds: float) -> list[Result]:
        """Results of tasks that have ended; waits up to `seconds` for the first."""

    def close(self, at_once: bool) -> None:
        """End all workers; `at_once` interrupts running tasks, whose unfinished files are removed."""


class Run:
    """One run; waiting clips are rows of the manifest, raw files of `scan` are found as wanted. Raises InputError where they cannot be."""

    def __init__(self, manifest: Manifest, steps: Sequence[Step], scan: Iterator[RawFile], config: PipelineConfig) -> None:
        self.manifest, self.steps, self.config = manifest, list(steps), config
        self.killed = 0  # processes that may have left unfinished files
        self._scan: Iterator[RawFile] = chain(list(islice(scan, 1)), scan)  # an input folder that cannot be read is refused here
        self._scanning = True
        self._last_raw: int | None = None  # row of the last raw file within the limit
        self._sources = [RAW, *(step.name for step in steps[:-1])]  # step k works on the clips that the k-th of these kept
        self._running: set[int] = set()  # rows
        self._tries: Counter[int] = Counter()  # by row
        self._failing: list[list[int]] = [[] for _ in steps]  # rows that failed since the last that did not
        self._number = manifest.begin_run(config.arguments, steps)
        self._progress = PipelineProgress([step.name for step in steps], config.show_progress)

    def close(self, ending: str) -> None:
        progress = self._progress
        progress.bar.close()
        numbers = {"seconds": progress.seconds, "works": progress.works, "raw_hours": progress.raw_hours, "cpu_idle": progress.cpu_idle}
        self.manifest.end_run(self._number, ending, **numbers)

    def work(self, executor: Executor) -> None:
        """Give out work until every clip is kept or rejected. LatentSyncError: a step cannot work at all, or no worker is left."""
        idle_since = time.monotonic()
        while True:
            self._scan_some()
            self._submit_tasks(executor)
            if self._running or self._scanning:
                idle_since = time.monotonic()
            elif (k := next((k for k in range(len(self.steps)) if self._next(k)), None)) is None:
                return
            elif time.monotonic() - idle_since > NO_WORKER_SECONDS:
                raise LatentSyncError(
                    f"Clips wait for the step {self.steps[k].name}, and for {NO_WORKER_SECONDS:.0f} s there was no worker for it: make "
                    "room for one (or ask for fewer with --workers, --gpu_workers), then run this again: it goes on from there"
                )
            for result in executor.wait(0.0 if self._scanning else _TICK):
                self._finish(result)
            self._progress.show()

    def _scan_some(self) -> None:
        if not self._scanning:
            return
        room = _SCAN_AT_ONCE
        if self.config.limit is not None:
            room = min(room, self.config.limit - self.manifest.count_raw())
        some = list(islice(self._scan, max(0, room)))
        self._scanning = bool(some)
        for row in self.manifest.add_raw(some, self._number):
            logger.info("A raw file has changed since it was worked on: it is worked on again")
            reopen(self.manifest, row)
        if self.config.limit is not None:
            self._last_raw = self.manifest.last_raw(self.config.limit)
        self._progress.raw_files = self.manifest.count_raw()

    def _submit_tasks(self, executor: Executor) -> None:
        """Give every free worker a task, of the latest step that has clips waiting; no step runs far ahead of the one behind it."""
        most = 4 * executor.slots() + _LEAST_BETWEEN
        for k in reversed(range(len(self.steps))):
            behind = None if k + 1 == len(self.steps) else self.steps[k].name
            while executor.free(k) and (behind is None or self.manifest.count_waiting(behind, most) < most):
                if (waiting := self._next(k)) is None:
                    break
                number, clip = waiting
                self._running.add(number)
                executor.submit(Task(number, k, clip))

    def _next(self, k: int) -> tuple[int, ClipFile] | None:
        return self.manifest.next_waiting(self._sources[k], self._running, self._last_raw if k == 0 else None)

    def _finish(self, result: Result) -> None:
        """Record the result of a clip, or let it be tried again."""
        task, step = result.task, self.steps[result.task.step]
        self._running.remove(task.number)
        if self.manifest.one("SELECT 1 FROM clips WHERE id = ?", task.number) is None:  # an earlier clip is worked on again
            return
        if result.failure is None:
            self._failing[task.step].clear()
            self._record(task, self._without_taken_names(task, result.outcome), result.seconds)
            return
        self.killed += result.failure in ("crashed", "timed out", "lost")
        self._tries[task.number] += 1
        if self._tries[task.number] < _TRIES.get(result.failure, 1):
            logger.warning("%s: %s; tried again", task.clip.source, result.why)
            return
        if result.failure == "not opened":
            raise LatentSyncError(f"The step {step.name} cannot begin ({result.why.rstrip('.')}): mend that, then run this again")
        self._record(task, [Rejected(_REASONS[result.failure], result.why)], result.seconds)
        if result.failure != "timed out":
            self._count_failure(task, result.why)

    def _record(self, task: Task, outcome: Outcome, seconds: float) -> None:
        step, path = self.steps[task.step], task.clip.path
        self.manifest.record(task.number, task.clip, step, outcome, seconds, self._number)
        self._tries.pop(task.number, None)
        reasons = {result.reason for result in outcome if isinstance(result, Rejected)}
        if self.config.remove_intermediate and not reasons & NOT_FINAL:
            remove_file(self.manifest, task.number)
        if task.step == 0 and self.config.delete_broken and BROKEN in reasons:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"cannot remove the broken file {path} ({(error.strerror or str(error)).lower()})") from None
            logger.info("%s is broken and was removed", path)
        self._progress.count(step.name, outcome, is_first=task.step == 0)

    def _without_taken_names(self, task: Task, outcome: Outcome) -> Outcome:
        """The outcome; a rejection where it wrote over the file of another clip, which is worked on again."""
        step = self.steps[task.step]
        written = [result.path for result in outcome if isinstance(result, Kept) and result.path != task.clip.path]
        owners = {path: owner for path in written if (owner := self.manifest.owner(step, path, task.number)) is not None}
        if not owners:
            return outcome
        for owner in set(owners.values()):
            reopen(self.manifest, owner)
        names = ", ".join(path.name for path in owners)
        return [Rejected("name taken", f"{step.name} gives it the name {names}, which another clip has: rename the raw file")]

    def _count_failure(self, task: Task, why: str) -> None:
        """Give up where clip after clip fails, and leave these clips for the next run."""
        failing = self._failing[task.step]
        failing.append(task.number)
        if len(failing) >= FAILURES_IN_A_ROW:
            for number in failing:
                reopen(self.manifest, number)
            raise LatentSyncError(
                f"The step {self.steps[task.step].name} failed for {len(failing)} clips in a row, the last time so: {why.rstrip('.')}; "
                "mend that, then run this again: it goes on with these clips"
            )


@dataclass(eq=False)
class _Slot:
    """Room for one worker."""

    device: str
    process: BaseProcess | None = None
    pipe: mpc.Connection | None = None
    task: Task | None = None
    deadline: float = 0.0
    begun: float | None = None  # when the step began with the clip; None while the step is loaded
    error: str = ""  # what the worker sent before its end


class LocalExecutor(Executor):
    """Processes by spawn, replaced when they die; one for each of `devices` has the steps with networks, else `workers` do all steps."""

    def __init__(self, steps: Sequence[Step], workers: int, devices: Sequence[str], timeout: float) -> None:
        super().__init__(steps, [_Slot("cpu") for _ in range(workers)], [_Slot(device) for device in devices], timeout)
        self._context = multiprocessing.get_context("spawn")

    def submit(self, task: Task) -> None:
        slot = self._free(task.step)[0]
        if slot.process is None or not slot.process.is_alive():
            self._start(slot)
        assert slot.pipe is not None
        slot.task, slot.begun, slot.error, slot.deadline = task, None, "", time.monotonic() + OPENING_SECONDS
        try:
            slot.pipe.send(task)
        except OSError:  # it has just died, as `wait` will find
            slot.error = "its process had ended"

    def wait(self, seconds: float) -> list[Result]:
        """As in `Executor`; a task that is over its time is ended here."""
        busy = {slot.pipe: slot for slot in self._all if slot.task is not None and slot.pipe is not None}
        if not busy:
            return []
        nearest = min(slot.deadline for slot in busy.values()) - time.monotonic()
        ready = mpc.wait(list(busy), timeout=max(0.0, min(seconds, nearest)))
        results = [self._receive(busy[pipe]) for pipe in ready]
        late = [slot for slot in busy.values() if slot.task is not None and slot.deadline <= time.monotonic()]
        return [result for result in results if result is not None] + [self._end(slot, is_late=True) for slot in late]

    def close(self, at_once: bool) -> None:
        running = [(slot, slot.process, slot.pipe) for slot in self._all if slot.process is not None and slot.pipe is not None]
        for slot, process, pipe in running:
            if at_once or slot.task is not None:
                process.terminate()
            pipe.close()  # ends a worker that waits for a task
        limit = time.monotonic() + _END_SECONDS
        for slot, process, _ in running:
            process.join(max(0.0, limit - time.monotonic()))
            end_tree(process)
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
        """One message of a worker (see `serve`), or its end; None where the task goes on."""
        assert slot.pipe is not None
        try:
            message: Result | str | None = slot.pipe.recv()
        except (EOFError, OSError):
            return self._end(slot)
        if isinstance(message, Result):
            slot.task = None
            return message
        if message is None:
            slot.begun = time.monotonic()
            slot.deadline = slot.begun + self._timeout
        else:
            slot.error = message
        return None

    def _end(self, slot: _Slot, is_late: bool = False) -> Result:
        """End a process that has died or is over its time; the result of its task."""
        assert slot.process is not None and slot.pipe is not None and slot.task is not None
        end_tree(slot.process)
        slot.pipe.close()
        name, code = self._steps[slot.task.step].name, slot.process.exitcode or 0
        if is_late and slot.begun is None:
            why = f"{name} was not ready after {OPENING_SECONDS:.0f} s"
        elif is_late:
            why = f"{name} took longer than {self._timeout:g} s"
        elif code < 0:
            why = slot.error or f"its process was ended by signal {-code}{' (out of memory?)' if code == -9 else ''}"
        else:
            why = slot.error or f"its process ended with status {code}"
        failure: Failure = "not opened" if slot.begun is None else "timed out" if is_late else "crashed"
        result = Result(slot.task, (), 0.0 if slot.begun is None else time.monotonic() - slot.begun, failure, why)
        slot.process = slot.pipe = slot.task = None
        return result


def serve(connection: mpc.Connection, steps: Sequence[Step], device: str) -> None:
    """Main function of a worker: answers each `Task` on `connection` by None as the step begins and a `Result`, until it is closed.

    Ctrl-C reaches every process of a terminal: the parent alone decides, and its SIGTERM ends a clip without leaving an unfinished file.
    An error that no step declares ends the process, after a message (str) about it: the state it left behind is not known.
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
            connection.send(_work(connection, task, steps[task.step], processors, device))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # unfinished files of the clip have been removed on the way here
    except BaseException as error:
        connection.send(f"{type(error).__name__}: {first_line(error)}")
        raise


def _work(connection: mpc.Connection, task: Task, step: Step, processors: dict[int, ClipProcessor], device: str) -> Result:
    if task.step not in processors:
        try:
            processors[task.step] = step.open(device)
        except LatentSyncError as error:
            return Result(task, (), 0.0, "not opened", str(error))
    connection.send(None)
    begun = time.monotonic()
    try:
        outcome = process_clip(processors[task.step], task, step)
    except LatentSyncError as error:
        return Result(task, (), time.monotonic() - begun, "failed", str(error))
    return Result(task, outcome, time.monotonic() - begun)


def process_clip(processor: ClipProcessor, task: Task, step: Step) -> Outcome:
    """The outcome of a step for a clip, checked. Raises LatentSyncError where the step broke its own rules."""
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
    own = [path for path in paths if path.is_file() and (path == clip.path or path.is_relative_to(step.folder))]
    if len(set(own)) < len(paths):
        names = ", ".join(map(str, paths))
        raise LatentSyncError(f"{step.name} has to write each file once, into {step.folder}, and says that it wrote {names}: mend the step")
    return outcome or [Rejected("nothing left", f"{step.name} found nothing in it to keep")]


def _end_with_the_parent() -> None:
    """End this process once the one that gives it tasks was killed: nobody would receive a result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    _kill(descendants(os.getpid()))
    os._exit(INTERRUPTED)


def descendants(pid: int) -> list[psutil.Process]:
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


class PipelineProgress:
    """A progress line, and the numbers of a run for the manifest."""

    def __init__(self, steps: Sequence[str], is_shown: bool) -> None:
        self.raw_files = 0  # found so far
        self.works = 0  # clips that a step was through with, in this run
        self.raw_hours = 0.0  # of video that went into the first step, in this run
        self._counts = {name: [0, 0] for name in steps}  # kept, rejected
        self._start, self._cpu_start = time.monotonic(), psutil.cpu_times()
        self._shown_at = float("-inf")
        self._every = 5.0 if sys.stderr.isatty() else 60.0  # seconds between two lines
        self.bar = tqdm(disable=not is_shown, bar_format="{desc}")

    def count(self, step: str, outcome: Outcome, is_first: bool) -> None:
        kept = sum(isinstance(result, Kept) for result in outcome)
        self.works += 1
        self._counts[step][0] += kept
        self._counts[step][1] += len(outcome) - kept
        if is_first:
            self.raw_hours += sum(float(result.facts.get("duration") or 0.0) for result in outcome) / 3600

    def show(self) -> None:
        if self.bar.disable or time.monotonic() - self._shown_at < self._every:
            return
        self._shown_at = time.monotonic()
        seconds = max(self.seconds, 1e-9)
        counts = " ".join(f"{name} {kept}/{rejected}" for name, (kept, rejected) in self._counts.items() if kept or rejected)
        parts = [
            f"{self.raw_files} files, {self.works} works",
            f"{self.works / seconds:.2f} clips/s",
            f"{3600 * self.raw_hours / seconds:.2f} h video/h",
            f"CPU {100 - 100 * self.cpu_idle:.0f} %",
            *gpu_use(),
            f"kept/rejected: {counts or 'none yet'}",
        ]
        self.bar.set_description_str(" | ".join(parts))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def cpu_idle(self) -> float:
        """Share of the time since the run began in which a processor had nothing to do, or waited for a disk."""
        idle, start = (times.idle + getattr(times, "iowait", 0.0) for times in (psutil.cpu_times(), self._cpu_start))
        return min(1.0, (idle - start) / max(self.seconds * (psutil.cpu_count() or 1), 1e-9))


def gpu_use() -> list[str]:
    """How busy the GPUs of this machine are, as their driver says: ["GPU 87 91 %"]; [] where there is none."""
    question = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [f"GPU {' '.join(answer.stdout.split())} %"]
