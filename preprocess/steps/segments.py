"""Step 4: shots -> pieces of a length that training can use."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from latentsync.constants import VIDEO_FPS
from preprocess.clip_writer import clip_path, cut, open_recording
from preprocess.step import ClipFile, Kept, Outcome, Rejected


@dataclass(frozen=True)
class Segments:
    """Cuts a shot of length L into ceil(L / max_seconds) pieces, as equal as key frames allow: nothing of it is lost.

    Shots shorter than `min_seconds` are rejected. `max_seconds` is at least twice `min_seconds`, so that no piece is shorter.
    """

    min_seconds: float
    max_seconds: float

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Pieces follow each other without a gap and begin at key frames where there is one in reach."""
        recording = open_recording(clip.path)
        shortest, longest = math.ceil(self.min_seconds * VIDEO_FPS - 1e-6), math.floor(self.max_seconds * VIDEO_FPS + 1e-6)
        length = recording.heard_frames
        if length < shortest:
            return [Rejected(f"shorter than {self.min_seconds:g} s", f"{clip.name} lasts {length / VIDEO_FPS:.2f} s")]
        outcome = []
        for number, (start, stop) in enumerate(pairwise(boundaries(length, shortest, longest, recording.keys))):
            target = clip_path(folder, clip.name, number)
            cut(recording, start, stop, target)
            begins = float(clip.facts.get("start") or 0.0) + start / VIDEO_FPS
            outcome.append(Kept(target, {"start": begins, "frames": stop - start, "duration": (stop - start) / VIDEO_FPS}))
        return outcome


def boundaries(length: int, shortest: int, longest: int, keys: Collection[int]) -> list[int]:
    """Where pieces of `length` frames begin and end: 0, ..., length.

    Each inner one is the key frame nearest to equal shares of what is left, or the exact share where no key frame leaves all
    pieces between `shortest` and `longest` frames.
    """
    edges, count = [0], math.ceil(length / longest)
    for left in range(count - 1, 0, -1):  # pieces after this boundary
        last = edges[-1]
        low, high = max(last + shortest, length - left * longest), min(last + longest, length - left * shortest)
        ideal = last + round((length - last) / (left + 1))
        near = [key for key in keys if low <= key <= high]
        edges.append(min(near, key=lambda key: (abs(key - ideal), key)) if near else min(max(ideal, low), high))
    return [*edges, length]


def open_segments(min_seconds: float, max_seconds: float, device: str) -> Segments:
    """The worker of this step; it needs no device."""
    return Segments(min_seconds, max_seconds)
