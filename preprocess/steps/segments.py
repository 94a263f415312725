"""Step 4: shots -> pieces of a length that training can use."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from preprocess.clip_writer import clip_path, cut, open_recording, piece_facts
from preprocess.step import ClipFile, Kept, Options, Outcome, Rejected, Settings, StepDefinition, StepOption

MIN_SECONDS = StepOption("min_seconds", float, 5.0, "shortest clip")
MAX_SECONDS = StepOption("max_seconds", float, 10.0, "longest clip, at least twice the shortest")


@dataclass(frozen=True)
class Segments:
    """Cuts a shot of length L into ceil(L / max_seconds) pieces, as equal as key frames allow; one under `min_seconds` is rejected."""

    min_seconds: float
    max_seconds: float

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Pieces follow each other without a gap and begin at key frames where there is one in reach."""
        recording = open_recording(clip.path)
        shortest, longest = math.ceil(self.min_seconds * VIDEO_FPS - 1e-6), math.floor(self.max_seconds * VIDEO_FPS + 1e-6)
        length = recording.frames_with_sound
        if length < shortest:
            return [Rejected(f"shorter than {self.min_seconds:g} s", f"{clip.name} lasts {length / VIDEO_FPS:.2f} s")]
        outcome = []
        for number, (start, stop) in enumerate(pairwise(boundaries(length, shortest, longest, recording.keys))):
            target = clip_path(folder, clip.name, number)
            cut(recording, start, stop, target)
            outcome.append(Kept(target, piece_facts(clip, start, stop)))
        return outcome


def boundaries(length: int, shortest: int, longest: int, keys: Collection[int]) -> list[int]:
    """Where pieces of `length` frames begin and end, 0 ... length: key frames near equal shares of what is left, or exact shares."""
    edges, count = [0], math.ceil(length / longest)
    for left in range(count - 1, 0, -1):  # pieces after this boundary
        last = edges[-1]
        low, high = max(last + shortest, length - left * longest), min(last + longest, length - left * shortest)
        ideal = last + round((length - last) / (left + 1))
        near = [key for key in keys if low <= key <= high]
        edges.append(min(near, key=lambda key: (abs(key - ideal), key)) if near else min(max(ideal, low), high))
    return [*edges, length]


def segments_settings(options: Options, checkpoints: Path) -> Settings:
    shortest, longest = options["min_seconds"], options["max_seconds"]
    if not 0 < 2 * shortest <= longest:
        lengths = f"{shortest:g} to {longest:g} s"
        raise InputError(f"Not every shot can be cut into pieces of {lengths}: let the longest be at least twice the shortest.")
    return {"min_seconds": shortest, "max_seconds": longest}


def open_segments(settings: Settings, checkpoints: Path, device: str) -> Segments:
    return Segments(**settings)


STEP = StepDefinition("segments", open_segments, "segmented", (MIN_SECONDS, MAX_SECONDS), segments_settings)
