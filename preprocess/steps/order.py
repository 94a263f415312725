"""The eight steps in their order, made from one set of options."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.third_party.hyperiqa import SIDE as JUDGED_SIDE
from latentsync.weights import CHECKPOINTS, WEIGHTS
from preprocess.stage import Fact, Stage
from preprocess.steps import encode
from preprocess.steps.affine import open_affine
from preprocess.steps.av_sync import open_av_sync
from preprocess.steps.decode_check import open_decode_check
from preprocess.steps.resample import open_resample
from preprocess.steps.resolution import open_high_resolution
from preprocess.steps.segments import open_segments
from preprocess.steps.shots import open_shots
from preprocess.steps.visual_quality import open_visual_quality

ROOT = Path(__file__).parents[2]
FILTERS = ("decode_check", "high_resolution", "av_sync", "visual_quality")  # steps that others do not need: they may be left out
_ENCODE: dict[str, Fact] = {"fps": VIDEO_FPS, "sample_rate": AUDIO_SAMPLE_RATE, "crf": encode.CRF, "preset": encode.PRESET}


@dataclass(frozen=True)
class StepOptions:
    """What a user can choose.

    Attributes:
        resolution: pixels a side of the faces that come out, and least size of the faces that go in.
        min_seconds, max_seconds: lengths of the pieces that shots are cut into; the second is at least twice the first.
        sync_conf_threshold: least confidence of SyncNet v2.
        max_offset: frames that mouth and sound may be apart; they are then put together.
        quality_threshold: least score of hyperIQA.
        skip: steps to leave out, of `FILTERS`.
        checkpoints: folder of weight files.
    """

    resolution: int = 256
    min_seconds: float = 5.0
    max_seconds: float = 10.0
    sync_conf_threshold: float = 3.0
    max_offset: int = 6
    quality_threshold: float = 40.0
    skip: frozenset[str] = frozenset()
    checkpoints: Path = ROOT / CHECKPOINTS

    def __post_init__(self) -> None:
        """Raises InputError for options that cannot be honoured."""
        if unknown := sorted(self.skip - set(FILTERS)):
            raise InputError(f"The step {unknown[0]!r} cannot be left out: name some of {', '.join(FILTERS)}.")
        if self.resolution < 32 or self.resolution % 8:
            raise InputError(f"The resolution {self.resolution} cannot be trained on: use a multiple of 8 such as 256 or 512.")
        if self.resolution < JUDGED_SIDE and "visual_quality" not in self.skip:
            raise InputError(f"hyperIQA judges pictures of {JUDGED_SIDE} pixels or more: use a larger resolution or skip visual_quality.")
        if not 0 < 2 * self.min_seconds <= self.max_seconds:
            lengths = f"{self.min_seconds:g} to {self.max_seconds:g} s"
            raise InputError(f"Not every shot can be cut into pieces of {lengths}: let the longest be at least twice the shortest.")
        if not 0 <= self.max_offset <= 15:
            raise InputError(f"An offset of {self.max_offset} frames cannot be found: SyncNet looks 15 frames either way.")


def all_stages(options: StepOptions) -> list[Stage]:
    """The steps that are not left out, in order."""
    stages = [*_media_stages(options), *_face_stages(options), *_filter_stages(options)]
    return [stage for stage in stages if stage.name not in options.skip]


def _media_stages(options: StepOptions) -> list[Stage]:
    shortest, longest = options.min_seconds, options.max_seconds
    return [
        Stage("decode_check", "", partial(open_decode_check, shortest), {"min_seconds": shortest}),
        Stage("resample", "resampled", open_resample, _ENCODE),
        Stage("shots", "shot", open_shots),
        Stage("segments", "segmented", partial(open_segments, shortest, longest), {"min_seconds": shortest, "max_seconds": longest}),
    ]


def _face_stages(options: StepOptions) -> list[Stage]:
    size, s3fd, fan = options.resolution, _file(options, "s3fd"), _file(options, "2dfan4")
    detector = "face-alignment" if s3fd.is_file() and fan.is_file() else "mtcnn"  # decided here, so that the manifest can say which
    common = {"resolution": size, "detector": detector}
    look = partial(open_high_resolution, detector, s3fd, fan, size)
    align = partial(open_affine, detector, s3fd, fan, size, options.min_seconds)
    return [
        Stage("high_resolution", "high_resolution", look, common, "gpu"),
        Stage("affine", "affine_transformed", align, {**common, **_ENCODE, "min_seconds": options.min_seconds}, "gpu"),
    ]


def _filter_stages(options: StepOptions) -> list[Stage]:
    confidence, offset, quality = options.sync_conf_threshold, options.max_offset, options.quality_threshold
    sync = partial(open_av_sync, _file(options, "sfd_face"), _file(options, "syncnet_v2"), confidence, offset)
    judge = partial(open_visual_quality, _file(options, "hyperiqa"), quality)
    wanted = {"min_confidence": confidence, "max_offset": offset}
    return [
        Stage("av_sync", f"av_synced_{confidence:g}", sync, wanted, "gpu", ("sfd_face", "syncnet_v2")),
        Stage("visual_quality", "high_visual_quality", judge, {"threshold": quality}, "gpu", ("hyperiqa",)),
    ]


def _file(options: StepOptions, name: str) -> Path:
    return options.checkpoints / WEIGHTS[name].path
