"""Step 8: keeps clips of high image quality, by hyperIQA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentsync.errors import InputError
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import keep, open_recording
from preprocess.step import ClipFile, Options, Outcome, Rejected, Settings, StepDefinition, StepOption
from preprocess.steps.resolution import RESOLUTION

QUALITY_THRESHOLD = StepOption("quality_threshold", float, 40.0, "lowest score of hyperIQA that is kept, 0 to 100")


@dataclass(frozen=True)
class VisualQuality:
    """hyperIQA (Su et al., CVPR 2020) of three frames of a clip, 0 (bad) to 100 (good)."""

    score: Callable[[Sequence[np.ndarray]], float]  # of frames uint8 h w 3, RGB
    threshold: float

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        from latentsync.third_party.hyperiqa import chosen_frames

        source = VideoReader(clip.path)
        wanted = chosen_frames(open_recording(clip.path).frames)
        frames = [frame for index in wanted for frame in source.frames(index, index + 1)]
        if len(frames) != len(wanted):
            raise InputError(f"{clip.path} cannot be decoded to its last frame: make it again")
        score = self.score(frames)
        facts = {"hyperiqa": round(score, 2)}
        if score < self.threshold:
            return [Rejected("low visual quality", f"{clip.name} has a score of {score:.1f}, under {self.threshold:g}", facts)]
        return [keep(clip, folder, facts)]


def visual_quality_settings(options: Options, checkpoints: Path) -> Settings:
    from latentsync.third_party.hyperiqa import SIDE

    if options["resolution"] < SIDE:
        raise InputError(f"hyperIQA needs pictures of {SIDE} pixels or more: use a larger resolution or skip visual_quality.")
    return {"threshold": options["quality_threshold"]}


def open_visual_quality(settings: Settings, checkpoints: Path, device: str) -> VisualQuality:
    from latentsync.third_party.hyperiqa import load_hyperiqa
    from latentsync.weights import weights_path

    return VisualQuality(load_hyperiqa(weights_path("hyperiqa", checkpoints)).to(device).score, settings["threshold"])


STEP = StepDefinition(
    "visual_quality",
    open_visual_quality,
    "high_visual_quality",
    options=(RESOLUTION, QUALITY_THRESHOLD),
    settings=visual_quality_settings,
    columns=("hyperiqa",),
    device="gpu",
    weights=("hyperiqa",),
    is_filter=True,
)
