"""Runs clips through steps in processes of this machine."""

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection as mpc
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, Protocol

from tqdm import tqdm

from latentsync.errors import InputError, LatentSyncError, OutputError, first_line
from preprocess.manifest import CRASHED, FAILED, NOT_FINAL, TIMED_OUT, Manifest, RawFile, Waiting, remove_file, reopen
from preprocess.step import RAW, ClipFile, Kept, Outcome, Rejected, Step, Worker

Trouble = Literal["failed", "crashed", "timed out", "lost", "not opened"]


@dataclass(frozen=True)
class Task:
    """One clip for one step."""

    number: int  # of the clip's row in the manifest
    step: int  # index into the steps of the run
    clip: ClipFile


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes:
        task: which.
        outcome: what the step made of the clip; None where there was trouble.
        seconds: spent by the step.
        trouble: "failed": the step said that it cannot work; "crashed": its process ended; "timed out": its process was ended;
            "lost": its machine went away; "not opened": the step could not even load its models.
        why: one sentence about the trouble.
    """

    task: Task
    outcome: Outcome | None
    seconds: float
    trouble: Trouble | None = None
    why: str = ""


class Executor(Protocol):
    """Runs tasks somewhere else; called from one thread.

    Workers may die and be replaced: for a while nothing may be free, and every task that was submitted still ends with a `Result`.
    """

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once. Raises LatentSyncError where no worker for it can be started any more."""
        ...

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task; there must be room for it."""
        ...

    def wait(self, seconds: float) -> Sequence[Result]:
        """What has ended; waits up to `seconds` for the first."""
        ...

    def close(self, at_once: bool) -> None:
        """Send everyone home; `at_once` interrupts what is at work, which is cleaned up and lost."""
        ...


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


INTERRUPTED = 130  # the shell's own exit code for Ctrl-C
UNUSABLE = "unusable"  # reason of clips that a step refuses without a reason of its own
_EXIT_GRACE = 5.0  # seconds to clean up in after the process that gives the work has died


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
    time.sleep(_EXIT_GRACE)
    end_children(os.getpid())
    os._exit(INTERRUPTED)


OPENING_SECONDS = 900.0  # to start a process and load the models of a step, from a slow disk too
_GRACE = 5.0  # seconds in which workers that are asked to end may clean up


@dataclass(eq=False)
class _Slot:
    """Room for one process."""

    device: str
    process: BaseProcess | None = None
    pipe: mpc.Connection | None = None
    task: Task | None = None
    deadline: float = 0.0
    begun: float | None = None  # when the step began with the clip; None while it is loaded
    words: str = ""  # the last that was heard of it


class LocalExecutor:
    """Processes started by spawn, each when it is first needed; one that dies or is ended is replaced with the next task.

    Args:
        steps: of the run.
        workers: processes for steps that need the CPU; where there are no `devices`, for all.
        devices: a torch device for each process that steps with a network get.
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
        return sum(slot.task is None for slot in self._pools[self._steps[step].stage.device])

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        return len(self._all)

    def submit(self, task: Task) -> None:
        """Begin a task; there must be room for it."""
        pool = self._pools[self._steps[task.step].stage.device]
        slot = next(slot for slot in pool if slot.task is None)
        if slot.process is None or not slot.process.is_alive():
            self._start(slot)
        assert slot.pipe is not None
        slot.task, slot.begun, slot.words, slot.deadline = task, None, "", time.monotonic() + OPENING_SECONDS
        try:
            slot.pipe.send(task)
        except OSError:  # it has just died: `wait` hears of it
            slot.words = "its process had ended"

    def wait(self, seconds: float) -> list[Result]:
        """What has ended; waits up to `seconds` for the first. A task that is over its time is ended here."""
        busy = {slot.pipe: slot for slot in self._all if slot.task is not None and slot.pipe is not None}
        if not busy:
            return []
        nearest = min(slot.deadline for slot in busy.values()) - time.monotonic()
        results = []
        for pipe in mpc.wait(list(busy), timeout=max(0.0, min(seconds, nearest))):
            result = self._hear(busy[pipe])
            if result is not None:
                results.append(result)
        now = time.monotonic()
        late = [slot for slot in busy.values() if slot.task is not None and slot.deadline <= now]
        return results + [self._give_up(slot) for slot in late]

    def close(self, at_once: bool) -> None:
        """Send everyone home; `at_once` interrupts what is at work, which is cleaned up and lost."""
        running = [slot for slot in self._all if slot.process is not None]
        for slot in running:
            assert slot.process is not None and slot.pipe is not None
            if at_once or slot.task is not None:
                slot.process.terminate()
            slot.pipe.close()  # one that waits for a task ends by this
        limit = time.monotonic() + _GRACE
        for slot in running:
            assert slot.process is not None
            slot.process.join(max(0.0, limit - time.monotonic()))
            end_tree(slot.process)
            slot.process = slot.pipe = slot.task = None

    def _start(self, slot: _Slot) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._steps, slot.device), name="clips")
        with signals_held():
            process.start()
            slot.process, slot.pipe = process, ours
        theirs.close()

    def _hear(self, slot: _Slot) -> Result | None:
        """One message of a worker, or its end; None where the task goes on."""
        assert slot.pipe is not None
        try:
            message: Message = slot.pipe.recv()
        except (EOFError, OSError):
            return self._died(slot)
        if message.kind == "begun":
            slot.begun = time.monotonic()
            slot.deadline = slot.begun + self._timeout
            return None
        if message.kind == "broken":
            slot.words = message.why
            return None  # its end follows
        trouble: Trouble | None = None if message.kind == "done" else message.kind
        return self._free(slot, message.outcome, message.seconds, trouble, message.why)

    def _died(self, slot: _Slot) -> Result:
        assert slot.process is not None
        end_tree(slot.process)
        code = slot.process.exitcode or 0
        died = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with status {code}"
        hint = " (out of memory?)" if code == -9 else ""
        trouble: Trouble = "crashed" if slot.begun is not None else "not opened"
        return self._replace(slot, trouble, slot.words or died + hint)

    def _give_up(self, slot: _Slot) -> Result:
        assert slot.process is not None and slot.task is not None
        end_tree(slot.process)
        name = self._steps[slot.task.step].name
        if slot.begun is None:
            return self._replace(slot, "not opened", f"{name} was not ready after {OPENING_SECONDS:.0f} s")
        return self._replace(slot, "timed out", f"{name} took longer than {self._timeout:g} s")

    def _replace(self, slot: _Slot, trouble: Trouble, why: str) -> Result:
        assert slot.pipe is not None
        slot.pipe.close()
        slot.process = slot.pipe = None
        return self._free(slot, None, 0.0 if slot.begun is None else time.monotonic() - slot.begun, trouble, why)

    @staticmethod
    def _free(slot: _Slot, outcome: object, seconds: float, trouble: Trouble | None, why: str) -> Result:
        assert slot.task is not None
        result = Result(slot.task, outcome, seconds, trouble, why)  # type: ignore[arg-type]
        slot.task = None
        return result


_EVERY = 1.0  # seconds between two lines in a terminal
_EVERY_LOG = 60.0  # ... and in a file
_GPU_EVERY = 15.0  # seconds between two questions to the driver
_HOUR = 3600.0


class PipelineProgress:
    """A line that tells how far a run is.

    Args:
        steps: names in order.
        shown: whether anything is written.
    """

    def __init__(self, steps: Sequence[str], shown: bool) -> None:
        self.raw_files = 0  # found so far
        self.works = 0  # clips that a step was through with, in this run
        self.raw_seconds = 0.0  # of video that went into the first step, in this run
        self._counts = {name: [0, 0] for name in steps}  # kept, rejected
        self._start = time.monotonic()
        self._shown_at = self._gpu_at = 0.0
        self._gpu = ""
        self._meter = CpuMeter()
        self._every = _EVERY if sys.stderr.isatty() else _EVERY_LOG
        self._bar = tqdm(unit="clip", disable=not shown, miniters=1, mininterval=self._every, bar_format="{desc}")

    def count(self, step: str, kept: int, rejected: int, outcome: Outcome, first: bool) -> None:
        """A step is through with a clip."""
        self.works += 1
        self._counts[step][0] += kept
        self._counts[step][1] += rejected
        if first:
            self.raw_seconds += sum(_duration(result.facts.get("duration")) for result in outcome)

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
        idle = self.cpu_idle()
        parts = [
            f"{self.raw_files} files, {self.works} works",
            f"{self.works / max(self.seconds(), 1e-9):.2f} clips/s",
            f"{self.raw_seconds / max(self.seconds(), 1e-9):.2f} h video/h",
            *([f"CPU {100 - 100 * idle:.0f} %"] if idle is not None else []),
            *([self._gpu] if self._gpu else []),
            f"kept/rejected: {counts or 'none yet'}",
        ]
        return " | ".join(parts)

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._start

    def cpu_idle(self) -> float | None:
        """Share of the time since the run began in which a processor had nothing to do; None where the system does not tell."""
        return self._meter.idle()

    def raw_hours(self) -> float:
        """Hours of video that went into the first step in this run."""
        return self.raw_seconds / _HOUR

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()


def _duration(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


class CpuMeter:
    """How busy the processors of this machine have been since this was made."""

    def __init__(self) -> None:
        self._start = self._times()

    def idle(self) -> float | None:
        """Share of the time, 0 to 1; None where the system does not tell."""
        now = self._times()
        if now is None or self._start is None or sum(now) <= sum(self._start):
            return None
        spent = [later - sooner for later, sooner in zip(now, self._start, strict=True)]
        return (spent[3] + spent[4]) / sum(spent)  # idle, and waiting for a disk

    @staticmethod
    def _times() -> list[int] | None:
        """user nice system idle iowait irq softirq steal, in ticks, of all processors together (Linux)."""
        with contextlib.suppress(OSError, ValueError), Path("/proc/stat").open(encoding="ascii") as file:
            return [int(word) for word in file.readline().split()[1:9]]
        return None


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


logger = logging.getLogger("preprocess.pipeline")
BROKEN = "broken"  # the reason of the first step for files that cannot be decoded
FAILURES_IN_A_ROW = 10  # clips that fail one after the other at a step before the run is given up: it is not the clips then
PATIENCE = 300.0  # seconds that clips wait while nobody can work on them before the run is given up
_TRIES = {"crashed": 2, "lost": 4, "not opened": 2}  # how often a clip is tried in all; other trouble is final
_REASONS = {"crashed": CRASHED, "lost": CRASHED, "timed out": TIMED_OUT, "failed": FAILED}
_AT_ONCE = 64  # clips of a step that are held in memory, and the least that may wait between two steps
_SCAN_AT_ONCE = 256
_TICK = 0.5  # seconds between two looks at the time


@dataclass(frozen=True)
class RunOptions:
    """What a run may do besides working.

    Attributes:
        limit: of raw files, those that were found first; None for all.
        delete_broken: remove raw files that cannot be decoded.
        remove_intermediate: remove files of steps before the last as soon as the next step is through with them.
    """

    limit: int | None = None
    delete_broken: bool = False
    remove_intermediate: bool = False


class Run:
    """One run of the pipeline.

    Memory does not grow with the number of clips: each step holds at most `_AT_ONCE` that wait, the others are rows. A step does not
    run ahead of the one behind it by more than a few clips for each worker.

    Args:
        manifest: opened to write; it says what is done already.
        steps: in order.
        scan: the raw files, found as they are asked for.
        executor: who works.
        progress: is told what happened.
        number: of this run in the manifest.
        options: see there.
    """

    def __init__(
        self,
        manifest: Manifest,
        steps: Sequence[Step],
        scan: Iterator[RawFile],
        executor: Executor,
        progress: PipelineProgress,
        number: int,
        options: RunOptions,
    ) -> None:
        self.manifest, self.steps, self.executor, self.progress = manifest, list(steps), executor, progress
        self.number, self.options = number, options
        self.killed = 0  # processes that may have left stumps
        self._scan = scan
        self._scanning = True
        self._before = [RAW, *(step.name for step in steps)]  # whose clips step k works on: the k-th
        self._waiting = [self.manifest.count_waiting(name) for name in self._before[:-1]]  # rows, in hand or not
        self._queues: list[deque[Waiting]] = [deque() for _ in steps]
        self._at_work: dict[int, tuple[int, Waiting]] = {}  # row -> step and clip
        self._tries: dict[int, int] = {}
        self._failing: list[list[int]] = [[] for _ in steps]  # rows that failed since the last that did not
        self._between = 4 * executor.slots() + _AT_ONCE

    def go(self) -> None:
        """Work until nothing waits and nothing is at work: every clip is kept or rejected then.

        Raises LatentSyncError where a step cannot work at all, or no worker can be had any more; what is recorded until then stays.
        """
        idle_since = time.monotonic()
        while True:
            self._scan_some()
            self._give()
            if self._at_work or self._scanning:
                idle_since = time.monotonic()
            elif (step := self._first_waiting()) is None:
                return
            elif time.monotonic() - idle_since > PATIENCE:
                raise LatentSyncError(
                    f"Clips wait for the step {step.name}, and for {PATIENCE:.0f} s there was no worker for it: make room for one "
                    "(or ask for fewer with --workers, --gpu_workers), then run this again: it goes on from there"
                )
            for result in self.executor.wait(0.0 if self._scanning else _TICK):
                self._take(result)
            self.progress.show()

    def _scan_some(self) -> None:
        """Note some more raw files."""
        if not self._scanning:
            return
        room = _SCAN_AT_ONCE
        if self.options.limit is not None:
            room = min(room, self.options.limit - self.manifest.count_raw())
        some = list(islice(self._scan, max(0, room)))
        if not some:
            self._scanning = False
            return
        for row in self.manifest.add_raw(some, self.number):
            logger.info("A raw file has changed since it was worked on: it is worked on again")
            self._reopen(row)
        self._waiting[0] = self.manifest.count_waiting(RAW)
        self.progress.raw_files = self.manifest.count_raw()

    def _give(self) -> None:
        """Let everyone who is free begin, with the latest step that has something to do."""
        for k in reversed(range(len(self.steps))):
            ahead = self._waiting[k + 1] >= self._between if k + 1 < len(self.steps) else False
            while not ahead and self.executor.free(k) and (waiting := self._next(k)) is not None:
                self._at_work[waiting.number] = (k, waiting)
                self.executor.submit(Task(waiting.number, k, waiting.clip))

    def _next(self, k: int) -> Waiting | None:
        """The next clip for a step; from the manifest when those in hand are used up."""
        queue = self._queues[k]
        if not queue:
            in_hand = {number for number, (step, _) in self._at_work.items() if step == k}
            if self._waiting[k] > len(in_hand):
                limit = -1 if self.options.limit is None else self.options.limit
                queue.extend(self.manifest.waiting(self._before[k], _AT_ONCE, in_hand, limit))
        return queue.popleft() if queue else None

    def _first_waiting(self) -> Step | None:
        """The first step that has something to do, as the manifest says; called when nothing is at work."""
        limit = -1 if self.options.limit is None else self.options.limit
        steps = zip(self._before, self.steps, strict=False)  # _before has one more, behind the last step
        return next((step for before, step in steps if self.manifest.waiting(before, 1, (), limit)), None)

    def _take(self, result: Result) -> None:
        """Record what became of a clip, or let it be tried again."""
        number = result.task.number
        k, waiting = self._at_work.pop(number)
        if not self.manifest.has(number):  # a clip before it is worked on again
            return
        if result.trouble is None:
            assert result.outcome is not None
            self._failing[k].clear()
            self._record(k, waiting, self._distinct(k, waiting, result.outcome), result.seconds)
            return
        self.killed += result.trouble in ("crashed", "timed out", "lost")
        self._tries[number] = self._tries.get(number, 0) + 1
        if self._tries[number] < _TRIES.get(result.trouble, 1):
            logger.warning("%s: %s; tried again", waiting.clip.source, result.why)
            self._queues[k].appendleft(waiting)
            return
        if result.trouble == "not opened":
            raise LatentSyncError(f"The step {self.steps[k].name} cannot begin ({result.why.rstrip('.')}): mend that, then run this again")
        rejected = Rejected(_REASONS[result.trouble], result.why)
        self._record(k, waiting, [rejected], result.seconds)
        self._count_failure(k, number, result)

    def _record(self, k: int, waiting: Waiting, outcome: Outcome, seconds: float) -> None:
        self.manifest.record(waiting, self.steps[k], outcome, seconds, self.number)
        self._tries.pop(waiting.number, None)
        kept = sum(isinstance(result, Kept) for result in outcome)
        self._waiting[k] -= 1
        if k + 1 < len(self.steps):
            self._waiting[k + 1] += kept
        if self.options.remove_intermediate and not any(isinstance(r, Rejected) and r.reason in NOT_FINAL for r in outcome):
            remove_file(self.manifest, waiting.number)
        if k == 0 and self.options.delete_broken and any(isinstance(r, Rejected) and r.reason == BROKEN for r in outcome):
            _delete_raw(waiting.clip.path)
        self.progress.count(self.steps[k].name, kept, len(outcome) - kept, outcome, first=k == 0)

    def _distinct(self, k: int, waiting: Waiting, outcome: Outcome) -> Outcome:
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
        """Let a clip be worked on again; what is in hand of it is forgotten."""
        reopen(self.manifest, row)
        for queue in self._queues:
            queue.clear()
        self._waiting = [self.manifest.count_waiting(name) for name in self._before[:-1]]

    def _count_failure(self, k: int, number: int, result: Result) -> None:
        """Give up where clip after clip fails, and leave these clips for the next run."""
        if result.trouble == "timed out":
            return
        self._failing[k].append(number)
        if len(self._failing[k]) >= FAILURES_IN_A_ROW:
            for failed in self._failing[k]:
                reopen(self.manifest, failed)
            raise LatentSyncError(
                f"The step {self.steps[k].name} failed for {FAILURES_IN_A_ROW} clips in a row, the last time so: {result.why.rstrip('.')}; "
                "mend that, then run this again: it goes on with these clips"
            )


def _delete_raw(path: Path) -> None:
    """Remove a raw file, as the user has asked for. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove the broken file {path} ({(error.strerror or str(error)).lower()})") from None
    logger.info("%s is broken and was removed", path)
