"""Step 8: keeps clips that look good, by hyperIQA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentsync.errors import InputError
from latentsync.media.video_reader import VideoReader
from latentsync.third_party.hyperiqa import chosen_frames, load_hyperiqa
from preprocess.clip_writer import clip_path, open_recording, place
from preprocess.step import ClipFile, Kept, Outcome, Rejected


@dataclass(frozen=True)
class VisualQuality:
    """hyperIQA (Su et al., CVPR 2020) of three frames of a clip, 0 (bad) to 100 (good)."""

    score: Callable[[Sequence[np.ndarray]], float]  # of frames uint8 h w 3, RGB
    threshold: float

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Keeps the file as it is."""
        source = VideoReader(clip.path)
        wanted = chosen_frames(open_recording(clip.path).frames)
        frames = [frame for index in wanted for frame in source.frames(index, index + 1)]
        if len(frames) != len(wanted):
            raise InputError(f"{clip.path} cannot be decoded to its last frame: make it again")
        score = self.score(frames)
        facts = {"hyperiqa": round(score, 2)}
        if score < self.threshold:
            return [Rejected("low visual quality", f"{clip.name} has a score of {score:.1f}, under {self.threshold:g}", facts)]
        target = clip_path(folder, clip.name)
        place(clip.path, target)
        return [Kept(target, facts)]


def open_visual_quality(weights: Path, threshold: float, device: str) -> VisualQuality:
    """The worker of this step, with its network on a device."""
    return VisualQuality(load_hyperiqa(weights).to(device).score, threshold)
