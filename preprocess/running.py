"""Run clips through steps: each goes on as soon as it is through, later steps come first, and what waits is kept in the manifest."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from latentsync.errors import LatentSyncError, OutputError
from preprocess.executors.base import Executor, Result, Task
from preprocess.manifest import Manifest, RawFile, Waiting
from preprocess.plan import RAW, Step
from preprocess.progress import Progress
from preprocess.resume import CRASHED, FAILED, NOT_FINAL, TIMED_OUT, remove_file, reopen
from preprocess.stage import Kept, Outcome, Rejected

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
        progress: Progress,
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
