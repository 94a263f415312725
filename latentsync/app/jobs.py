"""The job queue: requests, jobs and their progress, the threads that work on them."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from time import monotonic

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

EXTRA_SECONDS = 1.0  # that a result may last over the limit, which is not meant to the sample
FRAMES_PER_CLIP = 16  # frames in one pass of the published networks, for the progress within a clip
MAX_WAITING = 32  # jobs that may wait
COMPARISON_VIDEO = "before.mp4"  # name in a job's folder
COMPARISON_SIDE = 640  # pixels of its longer side: it is shown at half the width of a page
COMPARISON_CRF = 23


class JobStage(str, Enum):
    WAITING = "waiting"
    LOADING = "loading"
    ANALYSE = "analyse"  # as the pipeline's callback says, as is the next
    GENERATE = "generate"
    COMPARE = "compare"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        return self in (JobStage.DONE, JobStage.FAILED, JobStage.CANCELLED)


@dataclass(frozen=True)
class JobRequest:
    video: Path
    audio: Path
    options: LipsyncOptions  # with the number of steps given
    model: str  # its key
    max_minutes: float = 5.0  # of the longest result

    def check(self) -> None:
        """Refuse at once what can be refused without the networks. Raises InputError."""
        video, audio = probe(self.video), probe(self.audio)
        picture, sound = video.require_video(), audio.require_audio()
        file, stream = (audio, sound) if self.options.length == "audio" else (video, picture)
        self.check_length(stream.duration or file.duration)

    def check_length(self, seconds: float | None) -> None:
        """Raise InputError for a result that is too long; an unknown length (None) passes, and is watched while frames come."""
        if seconds is not None and seconds > self.max_minutes * 60 + EXTRA_SECONDS:
            path = self.audio if self.options.length == "audio" else self.video
            raise InputError(
                f"{path} lasts {seconds / 60:.1f} minutes and {self.max_minutes:g} are allowed here: cut it, "
                "or start the app with a larger --max_minutes."
            )

    @cached_property
    def fps(self) -> Fraction:
        """Frames a second of the result."""
        return probe(self.video).require_video().native_fps if self.options.keep_fps else Fraction(VIDEO_FPS)

    @cached_property
    def audio_frames(self) -> int | None:
        """Frames of the result where the sound decides, by what its file says; None where that is not known."""
        sound = probe(self.audio)
        seconds = (sound.audio and sound.audio.duration) or sound.duration
        return round(seconds * self.fps) if seconds and self.options.length == "audio" else None


class JobCancelled(Exception):
    """Stops a job from inside."""


@dataclass(frozen=True)
class JobProgress:
    """How far a job is in its stage; None is what is not known."""

    stage: JobStage
    done: int = 0  # frames
    total: int | None = None  # frames
    share: float | None = None  # of the stage that is done, 0 to 1, finer than frames
    rate: float = 0.0  # frames a second so far
    seconds_left: float | None = None
    ahead: int = 0  # jobs that come before this one while it waits


@dataclass
class QueuedJob:
    """A job between its request and its end."""

    request: JobRequest
    owner: str  # the session that asked; nobody else is shown anything of it
    folder: Path  # where its files are written; its own
    stage: JobStage = JobStage.WAITING
    result: LipsyncResult | None = None
    comparison_video: Path | None = None  # the original, frame for frame beside the result
    error: str | None = None  # why it failed
    _done: int = 0
    _total: int | None = None
    _steps: int = 0  # passes of the denoiser since frames last came out
    _share: float = 0.0
    _since: float = 0.0
    cancelled: threading.Event = field(default_factory=threading.Event)  # asks the job to stop; it does at the next frame or step
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise JobCancelled where the job was asked to stop."""
        if self.cancelled.is_set():
            raise JobCancelled

    def begin(self, stage: JobStage, total: int | None = None) -> None:
        """Enter a stage of so many frames, or raise JobCancelled."""
        self.check()
        with self._lock:
            self.stage, self._done, self._total, self._steps, self._share, self._since = stage, 0, total, 0, 0.0, monotonic()

    def advance(self, stage: str, done: int, total: int | None) -> None:
        """The pipeline's callback. Raises JobCancelled, or InputError where the result becomes too long, whatever its file said."""
        if self.stage is not JobStage(stage):
            self.begin(JobStage(stage))
        self.check()
        self.request.check_length(float((done if total is None else total) / self.request.fps))
        with self._lock:
            self._done, self._total, self._steps = done, total, 0
            self._share = max(self._share, done / total) if total else 0.0

    def step(self) -> None:
        """Told before each pass of the denoiser: finer than frames, and a place to stop between two steps."""
        self.check()
        if self.stage is JobStage.ANALYSE:  # the first pass comes before the first frame
            self.begin(JobStage.GENERATE, self.request.audio_frames or self._total)
        with self._lock:
            self._steps += 1
            if self._total:
                options = self.request.options
                clip = min(FRAMES_PER_CLIP * options.batch_clips, self._total - self._done)
                share_of_clip = min(1.0, (self._steps - 1) / (options.inference_steps or 1))
                self._share = max(self._share, (self._done + clip * share_of_clip) / self._total)

    def end(self, stage: JobStage, error: str | None = None) -> None:
        with self._lock:
            self.stage, self.error = stage, error

    def progress(self, ahead: int = 0) -> JobProgress:
        with self._lock:
            if self.stage not in (JobStage.ANALYSE, JobStage.GENERATE, JobStage.COMPARE):
                return JobProgress(self.stage, ahead=ahead)
            seconds = monotonic() - self._since
            share = self._share if self._total else None
            rate = share * self._total / seconds if share and seconds > 0 else self._done / seconds if seconds > 0 else 0.0
            left = seconds * (1 - share) / share if share and seconds > 1 else None
            return JobProgress(self.stage, self._done, self._total, share, rate, left)


def write_comparison_video(result: LipsyncResult, path: Path, on_frame: Callable[[], None]) -> Path:
    """Write the result's source as the result plays it, without sound, as .mp4; `on_frame` comes before each frame, may raise to stop."""
    source = VideoReader(result.video_path, Fraction(result.fps).limit_denominator(1001))
    scale = min(1.0, COMPARISON_SIDE / max(source.width, source.height))
    width, height = max(round(source.width * scale), 1), max(round(source.height * scale), 1)
    frames = prefetch(source.ping_pong(result.frames, result.source_frames))
    writer = VideoWriter(path, width, height, source.fps, like=source.info, crf=COMPARISON_CRF, preset="ultrafast")
    with closing(frames), writer:
        for frame in frames:
            on_frame()
            writer.write(shrink(frame, COMPARISON_SIDE))
    return path


class JobQueue:
    """Does jobs one after the other on each of `concurrency` threads; a context manager, whose end cancels what is left."""

    def __init__(self, model_cache: ModelCache, concurrency: int = 1) -> None:
        self.model_cache = model_cache
        self.model_cache.on_step = self._step
        self._thread = threading.local()  # .job: what this thread works on
        self._jobs: list[QueuedJob] = []  # that run or wait, in their order
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(concurrency, "worker")

    def __enter__(self) -> "JobQueue":
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs():
            self.cancel(job)
        self._workers.shutdown()

    def submit(self, request: JobRequest, owner: str, folder: Path) -> QueuedJob:
        """Put a job in line after a check of its inputs. Raises InputError: one cannot be used, or too many jobs wait."""
        request.check()
        job = QueuedJob(request, owner, folder)
        with self._lock:
            if sum(other.stage is JobStage.WAITING for other in self._jobs) >= MAX_WAITING:
                raise InputError(f"{MAX_WAITING} jobs are waiting already: try again in some minutes.")
            self._jobs.append(job)
            self._workers.submit(self._work, job)
        return job

    def cancel(self, job: QueuedJob) -> None:
        """Stop a job: at once while it waits, at the next frame or step while it runs."""
        job.cancelled.set()
        with self._lock:
            if job in self._jobs and job.stage is JobStage.WAITING:
                self._jobs.remove(job)
                job.end(JobStage.CANCELLED)

    def cancel_owner(self, owner: str) -> None:
        for job in self.jobs():
            if job.owner == owner:
                self.cancel(job)

    def jobs(self) -> list[QueuedJob]:
        with self._lock:
            return list(self._jobs)

    def counts(self) -> tuple[int, int]:
        """Jobs that run, jobs that wait."""
        jobs = self.jobs()
        waiting = sum(job.stage is JobStage.WAITING for job in jobs)
        return len(jobs) - waiting, waiting

    def progress(self, job: QueuedJob) -> JobProgress:
        """How far a job is, and while it waits how many come before it."""
        jobs = self.jobs()
        return job.progress(jobs.index(job) if job.stage is JobStage.WAITING and job in jobs else 0)

    def _work(self, job: QueuedJob) -> None:
        self._thread.job, request = job, job.request
        try:
            with self._lock:
                job.begin(JobStage.LOADING)
            with self.model_cache.use(request.model) as pipeline:
                job.check()
                job.folder.mkdir(parents=True, exist_ok=True)
                output = job.folder / f"{request.video.stem}_new_words.mp4"
                job.result = pipeline(request.video, request.audio, output, request.options, callback=job.advance)
            job.begin(JobStage.COMPARE)
            job.comparison_video = write_comparison_video(job.result, job.folder / COMPARISON_VIDEO, on_frame=job.check)
            end = (JobStage.DONE, None)
        except JobCancelled:
            end = (JobStage.CANCELLED, None)
        except LatentSyncError as error:
            end = (JobStage.FAILED, str(error))
        except Exception as error:  # whatever it is, the next job must have its turn
            logger.error("A job failed unexpectedly:", exc_info=error)
            end = (JobStage.FAILED, f"There was an {reason_of(error)}.")
        with self._lock:
            self._jobs = [other for other in self._jobs if other is not job]
        job.end(*end)

    def _step(self) -> None:
        """Frames come out a clip at a time, which can take a minute on a slow machine: a job can be stopped between two passes."""
        if job := getattr(self._thread, "job", None):
            job.step()
