"""The steps of the data pipeline in order. Each is one file that registers its name, folder, options, columns and how it is opened."""

from preprocess.step import StepDefinition
from preprocess.steps import affine, av_sync, decode_check, resample, resolution, segments, shots, visual_quality

STEPS: tuple[StepDefinition, ...] = (
    decode_check.STEP,
    resample.STEP,
    shots.STEP,
    segments.STEP,
    resolution.STEP,
    affine.STEP,
    av_sync.STEP,
    visual_quality.STEP,
)
