"""One job on its way: what was ordered, how far it is, how it ended; safe to look at from any thread."""

import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from time import monotonic

from latentsync.app.order import Order
from latentsync.pipelines.report import LipsyncResult


class JobCancelled(Exception):
    """Stops a job from inside."""


class Stage(str, Enum):
    """Where a job is."""

    WAITING = "waiting"
    LOADING = "loading"
    LOOK = "look"
    MAKE = "make"
    COMPARE = "compare"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether nothing more will happen."""
        return self in (Stage.DONE, Stage.FAILED, Stage.CANCELLED)


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        done, total: frames of this stage; `total` is None where it is not known.
        share: of the stage that is done, 0 to 1, finer than frames; None where it is not known.
        rate: frames a second in this stage so far, 0 before the first.
        seconds_left: of this stage; None where it cannot be told yet.
        ahead: jobs that come before this one while it waits.
    """

    stage: Stage
    done: int = 0
    total: int | None = None
    share: float | None = None
    rate: float = 0.0
    seconds_left: float | None = None
    ahead: int = 0


@dataclass
class Ticket:
    """A job between its order and its end.

    Attributes:
        order: what was asked.
        owner: the session that asked; nobody else is shown anything of it.
        folder: where its files are written; its own.
    """

    order: Order
    owner: str
    folder: Path
    stage: Stage = Stage.WAITING
    result: LipsyncResult | None = None
    before: Path | None = None  # the original on the clock of the result
    error: str | None = None
    _done: int = 0
    _total: int | None = None
    _steps: int = 0  # passes of the denoiser since frames last came out
    _share: float = 0.0
    _since: float = 0.0
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ask the job to stop; it does at the next frame or step."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancelled.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Block until the end; whether it came."""
        return self._ended.wait(seconds)

    def begin(self, stage: Stage) -> None:
        """Enter a stage, or raise JobCancelled."""
        self.check()
        with self._lock:
            self.stage, self._done, self._total, self._steps, self._share, self._since = stage, 0, None, 0, 0.0, monotonic()

    def check(self) -> None:
        """Raise JobCancelled where the job was asked to stop."""
        if self.is_cancelled:
            raise JobCancelled

    def advance(self, stage: str, done: int, total: int | None) -> None:
        """The pipeline's callback. Raises JobCancelled, or InputError where the result would become too long."""
        if self.stage is not Stage(stage):
            self.begin(Stage(stage))
        self.check()
        self.order.check_frames(done if total is None else total)
        with self._lock:
            self._done, self._total, self._steps = done, total, 0
            self._share = max(self._share, done / total) if total else 0.0

    def step(self) -> None:
        """Told before each pass of the denoiser: finer than frames, and a place to stop between two steps."""
        self.check()
        if self.stage is Stage.LOOK:  # the first pass comes before the first frame
            total = self.order.sound_frames or self._total
            self.begin(Stage.MAKE)
            self._total = total
        with self._lock:
            self._steps += 1
            if self._total:
                ahead = min(self.order.frames_at_once, self._total - self._done) * min(1.0, (self._steps - 1) / self.order.steps)
                self._share = max(self._share, (self._done + ahead) / self._total)

    def end(self, stage: Stage, error: str | None = None) -> None:
        """The end, one of three."""
        with self._lock:
            self.stage, self.error = stage, error
        self._ended.set()

    def progress(self, ahead: int = 0) -> Progress:
        """How far the job is now."""
        with self._lock:
            if self.stage not in (Stage.LOOK, Stage.MAKE, Stage.COMPARE):
                return Progress(self.stage, ahead=ahead)
            seconds = monotonic() - self._since
            share = self._share if self._total else None
            rate = share * self._total / seconds if share and seconds > 0 else self._done / seconds if seconds > 0 else 0.0
            left = seconds * (1 - share) / share if share and seconds > 1 else None
            return Progress(self.stage, self._done, self._total, share, rate, left)
