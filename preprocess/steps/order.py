"""The eight steps in their order, made from one set of options."""

from functools import partial
from pathlib import Path

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError, WeightsError
from latentsync.third_party.hyperiqa import SIDE as JUDGED_SIDE
from latentsync.weights import CHECKPOINTS, WEIGHTS, weights_path
from preprocess.stage import Fact, Stage
from preprocess.steps import encode, opening
from preprocess.steps.decode_check import open_decode_check
from preprocess.steps.options import StepOptions
from preprocess.steps.resample import open_resample
from preprocess.steps.segments import open_segments
from preprocess.steps.shots import open_shots

ROOT = Path(__file__).parents[2]
_ENCODE: dict[str, Fact] = {"fps": VIDEO_FPS, "sample_rate": AUDIO_SAMPLE_RATE, "crf": encode.CRF, "preset": encode.PRESET}


def all_stages(options: StepOptions) -> list[Stage]:
    """The steps that are not left out, in order."""
    if options.resolution < JUDGED_SIDE and "visual_quality" not in options.skip:
        raise InputError(f"hyperIQA judges pictures of {JUDGED_SIDE} pixels or more: use a larger resolution or skip visual_quality.")
    stages = [*_media_stages(options), *_face_stages(options), *_filter_stages(options)]
    return [stage for stage in stages if stage.name not in options.skip]


def check_weights(stages: list[Stage], options: StepOptions) -> None:
    """Stop before the first clip where a step lacks its weights. Raises WeightsError."""
    missing = {stage.name: [name for name in stage.weights if not _file(options, name).is_file()] for stage in stages}
    missing = {stage: names for stage, names in missing.items() if names}
    if missing:
        files = "; ".join(f"{_file(options, name)} ({WEIGHTS[name].origin})" for names in missing.values() for name in names)
        raise WeightsError(f"These weights are missing: {files}. Put them there, or go on without those steps: --skip {','.join(missing)}")


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
    look = partial(opening.high_resolution, detector, s3fd, fan, size)
    align = partial(opening.affine, detector, s3fd, fan, size, options.min_seconds)
    return [
        Stage("high_resolution", "high_resolution", look, common, "gpu"),
        Stage("affine", "affine_transformed", align, {**common, **_ENCODE, "min_seconds": options.min_seconds}, "gpu"),
    ]


def _filter_stages(options: StepOptions) -> list[Stage]:
    confidence, offset, quality = options.sync_conf_threshold, options.max_offset, options.quality_threshold
    sync = partial(opening.av_sync, _file(options, "sfd_face"), _file(options, "syncnet_v2"), confidence, offset)
    judge = partial(opening.visual_quality, _file(options, "hyperiqa"), quality)
    wanted = {"min_confidence": confidence, "max_offset": offset}
    return [
        Stage("av_sync", f"av_synced_{confidence:g}", sync, wanted, "gpu", ("sfd_face", "syncnet_v2")),
        Stage("visual_quality", "high_visual_quality", judge, {"threshold": quality}, "gpu", ("hyperiqa",)),
    ]


def _file(options: StepOptions, name: str) -> Path:
    return weights_path(name, options.checkpoints or ROOT / CHECKPOINTS)
