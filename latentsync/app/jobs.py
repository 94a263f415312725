"""The job queue: jobs, their progress, the threads that work on them."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from time import monotonic
from types import TracebackType

from latentsync.app.models import ModelCache
from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError, reason_of
from latentsync.faces.detector import shrink
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader, prefetch
from latentsync.media.video_writer import VideoWriter
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import LipsyncResult

logger = logging.getLogger(__name__)

MEGABYTE = 1 << 20
SLACK = 1.0  # seconds that a recording may last over the limit: nobody means one minute to the sample


@dataclass(frozen=True)
class Limits:
    """How long and how large the inputs of one job may be."""

    minutes: float = 5.0
    megabytes: int = 500

    @property
    def seconds(self) -> float:
        """The longest result."""
        return self.minutes * 60 + SLACK

    def check_file(self, path: Path) -> None:
        """Raise InputError for a file that is too large."""
        size = path.stat().st_size
        if size > self.megabytes * MEGABYTE:
            raise InputError(f"{path} has {size / MEGABYTE:.0f} MB and {self.megabytes} MB are allowed here: make it smaller or shorter.")

    def check_length(self, path: Path, seconds: float | None) -> None:
        """Raise InputError for a recording or a video that is too long; an unknown length passes, and is watched later."""
        if seconds is not None and seconds > self.seconds:
            raise InputError(
                f"{path} lasts {describe_minutes(seconds)} and {describe_minutes(self.minutes * 60)} are allowed here: cut it, "
                "or start the app with a larger --max_minutes."
            )


@dataclass(frozen=True)
class JobRequest:
    """One job as it was asked for.

    Attributes:
        model: key of the model.
        steps: denoising steps of one clip, for the progress.
        frames_at_once: frames in one pass of the networks, likewise.
    """

    video: Path
    audio: Path
    options: LipsyncOptions
    model: str
    limits: Limits
    steps: int = 20
    frames_at_once: int = 16

    def check(self) -> None:
        """Refuse at once what can be refused without the networks. Raises InputError."""
        for path in (self.video, self.audio):
            self.limits.check_file(path)
        video, audio = probe(self.video), probe(self.audio)
        picture, sound = video.require_video(), audio.require_audio()
        if self.options.length == "audio":
            self.limits.check_length(self.audio, sound.duration or audio.duration)
        else:
            self.limits.check_length(self.video, picture.duration or video.duration)

    @cached_property
    def fps(self) -> Fraction:
        """Frames a second of the result."""
        return probe(self.video).require_video().native_fps if self.options.keep_fps else Fraction(VIDEO_FPS)

    @cached_property
    def sound_frames(self) -> int | None:
        """Frames of the result where the sound decides, by what its file says; None where that is not known."""
        sound = probe(self.audio)
        seconds = (sound.audio and sound.audio.duration) or sound.duration
        return round(seconds * self.fps) if seconds and self.options.length == "audio" else None

    def check_frames(self, frames: int) -> None:
        """Refuse a result that grows too long although its file did not say so. Raises InputError."""
        self.limits.check_length(self.audio if self.options.length == "audio" else self.video, float(frames / self.fps))


def describe_minutes(seconds: float) -> str:
    """A length for a person: "45 s", "3 min", "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


LONG_SIDE = 640  # pixels: it is shown at half the width of a page
CRF = 23


def write_comparison_video(result: LipsyncResult, path: Path, on_frame: Callable[[], None]) -> Path:
    """Write what the result shows, without its new mouth and without sound.

    Args:
        result: of the job; its source is played as the result plays it, forwards and backwards.
        path: an .mp4 file.
        on_frame: called before each frame; may raise to stop.
    """
    source = VideoReader(result.video_path, Fraction(result.fps).limit_denominator(1001))
    longest = max(source.width, source.height)
    scale = min(1.0, LONG_SIDE / longest)
    width, height = max(round(source.width * scale), 1), max(round(source.height * scale), 1)
    frames = prefetch(source.ping_pong(result.frames, result.source_frames))
    with closing(frames), VideoWriter(path, width, height, source.fps, like=source.info, crf=CRF, preset="ultrafast") as sink:
        for frame in frames:
            on_frame()
            sink.write(shrink(frame, LONG_SIDE))
    return path


class JobCancelled(Exception):
    """Stops a job from inside."""


class JobStage(str, Enum):
    """Where a job is."""

    WAITING = "waiting"
    LOADING = "loading"
    ANALYSE = "analyse"
    GENERATE = "generate"
    COMPARE = "compare"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobStage.DONE, JobStage.FAILED, JobStage.CANCELLED)


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Attributes:
        done, total: frames of this stage; `total` is None where it is not known.
        share: of the stage that is done, 0 to 1, finer than frames; None where it is not known.
        rate: frames a second in this stage so far, 0 before the first.
        seconds_left: of this stage; None where it cannot be told yet.
        ahead: jobs that come before this one while it waits.
    """

    stage: JobStage
    done: int = 0
    total: int | None = None
    share: float | None = None
    rate: float = 0.0
    seconds_left: float | None = None
    ahead: int = 0


@dataclass
class QueuedJob:
    """A job between its order and its end.

    Attributes:
        order: what was asked.
        owner: the session that asked; nobody else is shown anything of it.
        folder: where its files are written; its own.
    """

    order: JobRequest
    owner: str
    folder: Path
    stage: JobStage = JobStage.WAITING
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

    def begin(self, stage: JobStage) -> None:
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
        if self.stage is not JobStage(stage):
            self.begin(JobStage(stage))
        self.check()
        self.order.check_frames(done if total is None else total)
        with self._lock:
            self._done, self._total, self._steps = done, total, 0
            self._share = max(self._share, done / total) if total else 0.0

    def step(self) -> None:
        """Told before each pass of the denoiser: finer than frames, and a place to stop between two steps."""
        self.check()
        if self.stage is JobStage.ANALYSE:  # the first pass comes before the first frame
            total = self.order.sound_frames or self._total
            self.begin(JobStage.GENERATE)
            self._total = total
        with self._lock:
            self._steps += 1
            if self._total:
                ahead = min(self.order.frames_at_once, self._total - self._done) * min(1.0, (self._steps - 1) / self.order.steps)
                self._share = max(self._share, (self._done + ahead) / self._total)

    def end(self, stage: JobStage, error: str | None = None) -> None:
        """The end, one of three."""
        with self._lock:
            self.stage, self.error = stage, error
        self._ended.set()

    def progress(self, ahead: int = 0) -> JobProgress:
        """How far the job is now."""
        with self._lock:
            if self.stage not in (JobStage.ANALYSE, JobStage.GENERATE, JobStage.COMPARE):
                return JobProgress(self.stage, ahead=ahead)
            seconds = monotonic() - self._since
            share = self._share if self._total else None
            rate = share * self._total / seconds if share and seconds > 0 else self._done / seconds if seconds > 0 else 0.0
            left = seconds * (1 - share) / share if share and seconds > 1 else None
            return JobProgress(self.stage, self._done, self._total, share, rate, left)


BEFORE = "before.mp4"  # name of the original in a job's folder
MOST_WAITING = 32  # jobs that may wait


class JobQueue:
    """Does jobs one after the other on each of its threads; a context manager, whose end cancels what is left.

    Args:
        shelf: the models.
        concurrency: jobs that are worked on at the same time, with one set of networks.
    """

    def __init__(self, shelf: ModelCache, concurrency: int = 1) -> None:
        self.shelf = shelf
        self.shelf.on_step = self._step
        self._here = threading.local()  # the ticket that this thread works on
        self._waiting: deque[QueuedJob] = deque()
        self._running: list[QueuedJob] = []
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"worker-{k}", daemon=True) for k in range(concurrency)]

    def __enter__(self) -> "JobQueue":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            tickets = [*self._waiting, *self._running]
            self._changed.notify_all()
        for ticket in tickets:
            self.cancel(ticket)
        for thread in self._threads:
            thread.join()

    def submit(self, order: JobRequest, owner: str, folder: Path) -> QueuedJob:
        """Put a job in line, after a look at its inputs.

        Raises:
            InputError: an input cannot be used, or too many jobs wait.
        """
        order.check()
        ticket = QueuedJob(order, owner, folder)
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise InputError(f"{MOST_WAITING} jobs are waiting already: try again in some minutes.")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: QueuedJob) -> None:
        """Stop a job: at once while it waits, at the next frame or step while it runs."""
        ticket.cancel()
        with self._changed:
            waits = ticket in self._waiting
            if waits:
                self._waiting.remove(ticket)
        if waits:
            ticket.end(JobStage.CANCELLED)

    def cancel_owner(self, owner: str) -> None:
        """Stop all jobs of a session."""
        with self._changed:
            tickets = [ticket for ticket in (*self._waiting, *self._running) if ticket.owner == owner]
        for ticket in tickets:
            self.cancel(ticket)

    def progress(self, ticket: QueuedJob) -> JobProgress:
        """How far a job is, and while it waits how many come before it."""
        with self._changed:
            ahead = self._waiting.index(ticket) + len(self._running) if ticket in self._waiting else 0
        return ticket.progress(ahead)

    def counts(self) -> tuple[int, int]:
        """Jobs that run, jobs that wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def _work(self) -> None:
        while (ticket := self._take()) is not None:
            try:
                self._do(ticket)
                end = (JobStage.DONE, None)
            except JobCancelled:
                end = (JobStage.CANCELLED, None)
            except LatentSyncError as error:
                end = (JobStage.FAILED, str(error))
            except Exception as error:  # whatever it is, the next job must have its turn
                logger.error("A job failed unexpectedly:", exc_info=error)
                end = (JobStage.FAILED, f"There was an {reason_of(error)}.")
            with self._changed:
                self._running.remove(ticket)
            ticket.end(*end)

    def _take(self) -> QueuedJob | None:
        """The next job, None when the workshop closes."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            ticket = self._waiting.popleft()
            self._running.append(ticket)
            return ticket

    def _do(self, ticket: QueuedJob) -> None:
        order = ticket.order
        ticket.begin(JobStage.LOADING)
        self._here.ticket = ticket
        with self.shelf.use(order.model) as pipeline:
            ticket.check()
            ticket.folder.mkdir(parents=True, exist_ok=True)
            ticket.result = pipeline(
                order.video, order.audio, ticket.folder / f"{order.video.stem}_new_words.mp4", order.options, callback=ticket.advance
            )
        ticket.begin(JobStage.COMPARE)
        ticket.before = write_comparison_video(ticket.result, ticket.folder / BEFORE, on_frame=ticket.check)

    def _step(self) -> None:
        """Frames come out a clip at a time, which can take a minute on a slow machine: a job can be stopped between two passes."""
        ticket = getattr(self._here, "ticket", None)
        if ticket is not None:
            ticket.step()
