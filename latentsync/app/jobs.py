"""The job queue: requests, jobs and their progress, the threads that work on them."""

import ipaddress
import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cached_property
from math import inf
from pathlib import Path
from time import monotonic, time

import numpy as np

from latentsync.app.models import ModelCache
from latentsync.app.people import data_address
from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError, reason_of
from latentsync.faces.detector import shrink
from latentsync.media.probe import MediaInfo, probe
from latentsync.media.video_reader import VideoReader, prefetch
from latentsync.media.video_writer import AudioTrack, VideoWriter
from latentsync.pipelines.memory import release_cached_memory
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import LipsyncResult

logger = logging.getLogger(__name__)

EXTRA_SECONDS = 1.0  # that a result may last over the limit, which is not meant to the sample
FRAMES_PER_CLIP = 16  # frames in one pass of the published networks, for the progress within a clip
MAX_PIXELS = 4096 * 2304
MAX_WAITING = 32  # jobs that may wait
MAX_WAITING_OF_SESSION = 4
MAX_WAITING_OF_ADDRESS = 8  # of a machine other than this one, however many sessions it claims to have
MEASURED_SECONDS = 1.0  # of a stage, after which its own speed says how long the rest takes
COMPARISON_VIDEO = "before.mp4"  # name in a job's folder
COMPARISON_SIDE = 1920  # pixels of its longer side: it is enlarged, too
COMPARISON_CRF = 20
POSTER_SIDE = 240  # pixels of the longer side of a result's picture


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


WORK = (JobStage.ANALYSE, JobStage.GENERATE, JobStage.COMPARE)  # the stages of the bar
GUESSED_SECONDS = {JobStage.ANALYSE: 0.05, JobStage.GENERATE: 0.03, JobStage.COMPARE: 0.01}  # of a frame and pass, before one was measured


def check_pixels(video: MediaInfo, max_pixels: int) -> None:
    """Raise InputError for a video with a picture that is larger than is allowed here."""
    picture = video.require_video()
    if picture.width * picture.height > max_pixels:
        raise InputError(
            f"{video.path} has {picture.width}x{picture.height} pixels, {picture.width * picture.height / 1e6:.1f} million, and "
            f"{max_pixels / 1e6:.1f} million are allowed here: scale it down."
        )


@dataclass(frozen=True)
class JobRequest:
    video: Path
    audio: Path
    options: LipsyncOptions  # with the number of steps given
    model: str  # its key
    max_minutes: float = 5.0  # of the longest result
    max_pixels: int = MAX_PIXELS  # of the largest picture

    @property
    def files(self) -> list[Path]:
        """All inputs, the video first."""
        return [self.video, self.audio]

    def check(self) -> None:
        """Refuse at once what can be refused without the networks. Raises InputError."""
        video, audio = probe(self.video), probe(self.audio)
        picture, sound = video.require_video(), audio.require_audio()
        check_pixels(video, self.max_pixels)
        file, stream = (audio, sound) if self.options.length == "audio" else (video, picture)
        self.check_length(stream.duration or file.duration)

    def check_length(self, seconds: float | None) -> None:
        """Raise InputError for a result that is too long; an unknown length (None) passes, and is watched while frames come."""
        if seconds is not None and seconds > self.max_minutes * 60 + EXTRA_SECONDS:
            path = self.audio if self.options.length == "audio" else self.video
            raise InputError(
                f"{path} lasts {seconds / 60:.1f} minutes and {self.max_minutes:g} are allowed here: cut it shorter, "
                "or ask who runs this page to allow more."
            )

    @cached_property
    def fps(self) -> Fraction:
        """Frames a second of the result."""
        return probe(self.video).require_video().native_fps if self.options.keep_fps else Fraction(VIDEO_FPS)

    @cached_property
    def frames(self) -> int | None:
        """Frames of the result, by what the files say; None where that is not known."""
        picture = probe(self.video).require_video()
        seconds = picture.duration or probe(self.video).duration
        return self.audio_frames if self.options.length == "audio" else round(seconds * self.fps) if seconds else None

    @cached_property
    def audio_frames(self) -> int | None:
        """Frames of the result where the sound decides, by what its file says; None where that is not known."""
        sound = probe(self.audio)
        seconds = (sound.audio and sound.audio.duration) or sound.duration
        return round(seconds * self.fps) if seconds and self.options.length == "audio" else None


class JobCancelled(Exception):
    """Stops a job from inside."""


class Pace:
    """How many seconds the stages of a job take on this machine, learnt from the jobs before it; for any number of threads."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[JobStage, str], float] = {}  # (stage, model) -> of a frame and pass

    @staticmethod
    def passes(stage: JobStage, options: LipsyncOptions) -> float:
        """The work on a frame in passes of the denoiser, with the codec counted as two; 1 in stages without networks."""
        if stage is not JobStage.GENERATE:
            return 1
        return (options.inference_steps or 1) * (2 if (options.guidance_scale or 1) > 1 else 1) + 2

    def knows(self, stage: JobStage, request: JobRequest) -> bool:
        return (stage, request.model) in self._seconds

    def seconds(self, stage: JobStage, request: JobRequest, frames: int) -> float:
        """The time of a whole stage: as learnt, else a guess, which only shapes the bar."""
        seconds = self._seconds.get((stage, request.model), GUESSED_SECONDS[stage])
        return seconds * frames * self.passes(stage, request.options)

    def whole(self, request: JobRequest, frames: int) -> float | None:
        """The time of a whole job; None before one with this model taught how long."""
        if not all(self.knows(stage, request) for stage in WORK):
            return None
        return sum(self.seconds(stage, request, frames) for stage in WORK)

    def learn(self, stage: JobStage, request: JobRequest, frames: int, seconds: float) -> None:
        new = seconds / (max(frames, 1) * self.passes(stage, request.options))
        self._seconds[stage, request.model] = (self._seconds.get((stage, request.model), new) + new) / 2


@dataclass(frozen=True)
class JobProgress:
    """How far a job is; None is what is not known. Neither `share` nor `seconds_left` of a job ever goes back."""

    stage: JobStage
    done: int = 0  # frames in this stage
    total: int | None = None  # frames in this stage
    share: float | None = None  # of the whole job, 0 to 1, finer than frames
    rate: float = 0.0  # frames a second in this stage so far
    seconds_left: float | None = None  # until the job's end
    ahead: int = 0  # jobs that come before this one while it waits
    seconds_ahead: float | None = None  # until it begins while it waits
    is_stopping: bool = False


@dataclass
class QueuedJob:
    """A job from its request until nobody wants its result any more."""

    request: JobRequest
    owner: str  # the session that asked
    folder: Path  # where its files are written; its own
    address: str = ""  # of the machine that asked
    pace: Pace = field(default_factory=Pace)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # who knows it may watch the job: nobody can guess it
    stage: JobStage = JobStage.WAITING
    result: LipsyncResult | None = None
    comparison_video: Path | None = None  # the original, frame for frame beside the result
    newest_frame: np.ndarray | None = None  # uint8 h w 3, while the job runs
    poster: str | None = None  # address of a picture of the result
    ended: float | None = None  # seconds since 1970
    error: str | None = None  # why it failed
    seen: float = field(default_factory=monotonic)  # when somebody last looked at it
    _done: int = 0
    _total: int | None = None
    _steps: int = 0  # passes of the denoiser since frames last came out
    _middle: np.ndarray | None = None  # the frame in the middle, or the newest before that
    _share: float = 0.0  # of the stage
    _since: float = 0.0  # when the stage began
    _shown_share: float = 0.0  # of the whole job, the largest that was told
    _shown_left: float = inf  # seconds, the smallest that was told
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
            self._learn()
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

    def show(self, frame: np.ndarray) -> None:
        """The pipeline's newest frame."""
        self.newest_frame = frame
        if self._done <= (self._total or 0) // 2:
            self._middle = frame

    def end(self, stage: JobStage, error: str | None = None) -> None:
        with self._lock:
            if stage is JobStage.DONE:
                self._learn()
                self.poster = None if self._middle is None else data_address(shrink(self._middle, POSTER_SIDE))
            self.error, self.newest_frame, self._middle, self.ended = error, None, None, time()
            self.stage = stage

    def progress(self, ahead: int = 0, seconds_ahead: float | None = None) -> JobProgress:
        with self._lock:
            stopping = self.cancelled.is_set()
            if self.stage not in WORK:
                return JobProgress(self.stage, ahead=ahead, seconds_ahead=seconds_ahead, is_stopping=stopping)
            seconds = monotonic() - self._since
            share = self._share if self._total else 0.0
            rate = (share * self._total if share else self._done) / seconds if seconds > 0 else 0.0
            self._tell(share, seconds)
            left = self._shown_left if self._shown_left < inf else None
            return JobProgress(self.stage, self._done, self._total, self._shown_share, rate, left, is_stopping=stopping)

    def expected_seconds(self) -> float | None:
        """How long the whole job takes; None before a job with this model taught how long."""
        return self.pace.whole(self.request, self.request.frames) if self.request.frames else None

    def _tell(self, share: float, seconds: float) -> None:
        """Set what is shown of the whole job from the share of its stage that is done and the seconds since that began."""
        frames = self.request.frames or self._total or self._done or 1
        expected = {stage: self.pace.seconds(stage, self.request, frames) for stage in WORK}
        place = WORK.index(self.stage)
        before, after = (sum(expected[stage] for stage in stages) for stages in (WORK[:place], WORK[place + 1 :]))
        whole = (before + expected[self.stage] * share) / sum(expected.values())
        self._shown_share = max(self._shown_share, min(whole, 1.0))
        if self.stage is JobStage.ANALYSE and not self.pace.knows(JobStage.GENERATE, self.request):
            return  # what follows takes most of the time, and nobody knows how much
        if share and seconds > MEASURED_SECONDS:
            rest = seconds * (1 - share) / share
        elif self.pace.knows(self.stage, self.request):
            rest = expected[self.stage] * (1 - share)
        else:
            return
        self._shown_left = min(self._shown_left, rest + after)

    def _learn(self) -> None:
        if self.stage in WORK and self._done:
            self.pace.learn(self.stage, self.request, self._done, monotonic() - self._since)


def is_this_machine(address: str) -> bool:
    """Whether an address, "" for none, is this machine's own: its user, or a proxy that does not say for whom it asks."""
    try:
        return not address or ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name, of a test's client
        return True


def write_comparison_video(result: LipsyncResult, path: Path, advance: Callable[[str, int, int | None], None]) -> Path:
    """Write the result's source as the result plays it, with its own sound, as .mp4; `advance` is told of progress, may raise to stop."""
    source = VideoReader(result.video_path, Fraction(result.fps).limit_denominator(1001))
    scale = min(1.0, COMPARISON_SIDE / max(source.width, source.height))
    width, height = max(round(source.width * scale), 1), max(round(source.height * scale), 1)
    frames = prefetch(source.ping_pong(result.frames, result.source_frames))
    sound = AudioTrack(result.video_path, float(result.frames / source.fps)) if source.info.has_audio else None
    writer = VideoWriter(path, width, height, source.fps, audio=sound, like=source.info, crf=COMPARISON_CRF, preset="ultrafast")
    with closing(frames), writer:
        for number, frame in enumerate(frames, start=1):
            advance(JobStage.COMPARE.value, number, result.frames)
            writer.write(shrink(frame, COMPARISON_SIDE))
    return path


class JobQueue:
    """Does jobs one after the other on each of `concurrency` threads; a context manager, whose end cancels what is left."""

    def __init__(self, model_cache: ModelCache, concurrency: int = 1) -> None:
        self.model_cache = model_cache
        self.model_cache.on_step, self.model_cache.on_layer = self._step, self._check
        self._thread = threading.local()  # .job: what this thread works on
        self._jobs: list[QueuedJob] = []  # that run or wait, in their order
        self._lock = threading.Lock()
        self.pace, self._concurrency = Pace(), concurrency
        self._workers = ThreadPoolExecutor(concurrency, "worker")

    def __enter__(self) -> "JobQueue":
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs():
            self.cancel(job)
        self._workers.shutdown()

    def submit(self, request: JobRequest, owner: str, folder: Path, address: str = "") -> QueuedJob:
        """Put a job in line after a check of its inputs. Raises InputError: one cannot be used, or too many jobs wait."""
        request.check()
        job = QueuedJob(request, owner, folder, address, self.pace)
        _ = request.frames  # read from the files now, which nobody waits for
        with self._lock:
            waiting = [other for other in self._jobs if other.stage is JobStage.WAITING]
            if sum(other.owner == owner for other in waiting) >= MAX_WAITING_OF_SESSION:
                raise InputError(f"{MAX_WAITING_OF_SESSION} of your jobs are waiting already: wait until one of them begins, or stop one.")
            if not is_this_machine(address) and sum(other.address == address for other in waiting) >= MAX_WAITING_OF_ADDRESS:
                raise InputError(f"{MAX_WAITING_OF_ADDRESS} jobs from your address are waiting already: wait until one of them begins.")
            if len(waiting) >= MAX_WAITING:
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

    def jobs(self) -> list[QueuedJob]:
        with self._lock:
            return list(self._jobs)

    def counts(self) -> tuple[int, int]:
        """Jobs that run, jobs that wait."""
        jobs = self.jobs()
        waiting = sum(job.stage is JobStage.WAITING for job in jobs)
        return len(jobs) - waiting, waiting

    def progress(self, job: QueuedJob) -> JobProgress:
        """How far a job is, and while it waits how many come before it and how long they take."""
        jobs = self.jobs()
        if job.stage is not JobStage.WAITING or job not in jobs:
            return job.progress()
        before = jobs[: jobs.index(job)]
        times = [other.expected_seconds() if other.stage not in WORK else other.progress().seconds_left for other in before]
        return job.progress(len(before), None if None in times else sum(times) / self._concurrency)

    def _work(self, job: QueuedJob) -> None:
        self._thread.job, request = job, job.request
        try:
            with self._lock:
                job.begin(JobStage.LOADING)
            with self.model_cache.use(request.model) as pipeline:
                job.check()
                job.folder.mkdir(parents=True, exist_ok=True)
                output = job.folder / f"{request.video.stem}_new_words.mp4"
                job.result = pipeline(request.video, request.audio, output, request.options, callback=job.advance, on_frame=job.show)
            job.comparison_video = write_comparison_video(job.result, job.folder / COMPARISON_VIDEO, job.advance)
            end = (JobStage.DONE, None)
        except JobCancelled:
            end = (JobStage.CANCELLED, None)
        except LatentSyncError as error:
            end = (JobStage.FAILED, str(error))
        except Exception as error:  # whatever it is, the next job must have its turn
            logger.error("A job failed unexpectedly:", exc_info=error)
            end = (JobStage.FAILED, f"There was an {reason_of(error)}.")
        self._thread.job = None
        release_cached_memory()
        with self._lock:
            self._jobs = [other for other in self._jobs if other is not job]
        job.end(*end)

    def _step(self) -> None:
        """Frames come out a clip at a time, which can take a minute on a slow machine: a job can be stopped between two passes."""
        if job := getattr(self._thread, "job", None):
            job.step()

    def _check(self) -> None:
        """A step of large networks can take many seconds, too: a job can be stopped before each of their layers."""
        if job := getattr(self._thread, "job", None):
            job.check()
