"""One run of the pipeline: what was asked, what was found out on the way, and what is reported in the end."""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.errors import InputError
from latentsync.faces.plan import FacePlan, name_damage
from latentsync.media.audio import AudioSamples
from latentsync.media.encoding import check_output
from latentsync.media.ffmpeg import probe
from latentsync.media.video import VideoSource
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.report import LipsyncResult, Stopwatch, describe_damage, describe_skipped, spans_of
from latentsync.pipelines.timeline import frames_in
from latentsync.whisper.log_mel import FollowedBySilence, Samples

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[str, int, int | None], None]  # stage ("look" or "make"), frames done, frames in all where known
SEED_LIMIT = 2**32  # fresh seeds are small enough to be typed again


@dataclass
class Job:
    """State of one run; made per call and thrown away with it."""

    video_path: Path
    audio_path: Path
    output_path: Path
    options: LipsyncOptions
    clock: Stopwatch
    callback: ProgressCallback | None = None
    total: int | None = None  # output frames, once they are known
    sound_length: float | None = None  # seconds of sound, as decoded
    copy_sound: bool = True  # whether the packets of the sound play as they were decoded
    warnings: list[str] = field(default_factory=list)
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.seed = self.options.seed if self.options.seed >= 0 else secrets.randbelow(SEED_LIMIT)

    def check(self) -> None:
        """Refuse, before any work, inputs that cannot be used and an output that cannot be written or would cost the user a file.

        Raises:
            InputError, OutputError: why.
        """
        probe(self.video_path).require_video()
        options = self.options
        probe(self.audio_path).require_audio(options.audio_track)
        inputs = [self.video_path, self.audio_path]
        check_output(self.output_path, inputs, options.codec, options.crf, options.preset, lossless=options.lossless)
        if not options.overwrite and self.output_path.exists() and self.output_path.stat().st_size > 0:
            raise InputError(f"{self.output_path} exists already: name another output, or say --overwrite to replace it.")

    def warn(self, message: str) -> None:
        """Tell the user now and in the result."""
        logger.warning("%s", message)
        self.warnings.append(message)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Pass progress on to who asked for it."""
        if self.callback is not None:
            self.callback(stage, done, total)

    def hear(self, samples: AudioSamples, source: VideoSource) -> None:
        """Measure the sound: it decides how long the result is, unless the video does."""
        if len(samples) == 0:
            raise InputError(f"{self.audio_path} holds no sound (0 samples): give a recording of the words to be said.")
        self.sound_length, self.copy_sound = samples.duration, samples.can_be_copied
        self._tell_track(samples)
        self.warnings += samples.notes  # the samples have said so themselves
        if samples.is_silent:
            self.warn(f"{self.audio_path} is silent: there are no words to move the mouth to.")
        if self.options.length == "audio":
            self.total = frames_in(Fraction(len(samples), AUDIO_SAMPLE_RATE), source.fps)

    def _tell_track(self, samples: AudioSamples) -> None:
        """Say which track is taken where there are several."""
        tracks = samples.info.audio_tracks
        if len(tracks) < 2:
            return
        taken = f"{self.audio_path} has {len(tracks)} audio tracks, {samples.info.describe_audio_tracks()}: "
        taken += f"number {tracks.index(samples.stream)} is taken"
        if self.options.audio_track is None:
            self.warn(f"{taken}; another one is chosen with --audio_track.")
        else:
            logger.info("%s.", taken)

    def note_losses(self, source: VideoSource) -> None:
        """Tell what the picture loses by being read as 8-bit RGB."""
        for sentence in source.losses:
            self.warn(sentence)

    def note_damage(self, plan: FacePlan, source: VideoSource) -> FacePlan:
        """Tell where the video is damaged, now that it was read; the plan says so of frames without a face."""
        damaged = source.damaged_runs(plan.num_frames)
        if damaged:
            where = describe_damage(damaged, source.fps)
            self.warn(f"{self.video_path} is damaged: the picture may be wrong in {where}; use another copy of it if there is one.")
        return name_damage(plan, damaged)

    def settle(self, plan: FacePlan, source: VideoSource, samples: AudioSamples) -> Samples:
        """Fix the length of the result now that the video was seen; returns the sound of that length.

        Raises:
            InputError: there is no face to work on.
        """
        if not plan.spans:
            raise InputError(f"No face to work on in {self.video_path} ({describe_skipped(plan, source.fps)}): {self._advice(plan)}.")
        if source.problem:
            self.warnings.append(f"{self.video_path}: {source.problem}.")  # the source has said so itself
        if plan.skipped:
            self.warn(f"Left as they are: {describe_skipped(plan, source.fps)}.")
        if self.total is None:
            self.total = plan.num_frames
            sound = Fraction(len(samples), AUDIO_SAMPLE_RATE) * source.fps
            if sound < self.total:
                return FollowedBySilence(samples, int(self.total / source.fps * AUDIO_SAMPLE_RATE))
        elif self.total > plan.num_frames:
            self.warn(
                f"The sound ({self.total} frames) is longer than the video ({plan.num_frames} frames): "
                "the video plays forwards and backwards."
            )
        return samples

    def _advice(self, plan: FacePlan) -> str:
        """What to do when no face can be worked on."""
        if plan.most_faces:
            return f"choose another person with --face (now {self.options.face}), or a video in which the face is larger"
        return "name a video in which a face is clearly visible"

    def result(self, source: VideoSource, plan: FacePlan, generated: int) -> LipsyncResult:
        """The outcome, after the output file has appeared."""
        device = self.clock.device
        return LipsyncResult(
            video_path=self.video_path,
            audio_path=self.audio_path,
            output_path=self.output_path,
            width=source.width,
            height=source.height,
            fps=float(source.fps),
            frames=self.total,
            source_frames=plan.num_frames,
            generated=generated,
            duration=float(self.total / source.fps),
            seed=self.seed,
            batch_clips=self.options.batch_clips,
            spans=spans_of(plan),
            skipped=plan.skipped,
            warnings=tuple(self.warnings),
            seconds={stage: round(seconds, 3) for stage, seconds in self.clock.seconds.items()},
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )
