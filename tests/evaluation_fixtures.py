"""A tiny evaluation: clips of soft colours, a face that is always in one place, a model that copies, measures that look at grey levels."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from eval.metrics.available import Available, Missing
from media_fixtures import encode_frames, run_ffmpeg, smooth_frames

from eval.cases import GeneratedVideos
from eval.measure import FaceClips
from eval.metrics.base import Case, Chunk, Column
from eval.metrics.distribution import set_distance
from eval.run import Subject
from latentsync.errors import InputError
from latentsync.faces.detector import Face

FRAMES = 20
ANCHORS = np.array([[80, 60], [110, 60], [95, 80]], np.float32)


class FixedFace:
    """A detector that sees the same face everywhere, except in pictures as dark as night."""

    name = "fixed"
    smoothing = "none"
    long_side = None

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, picture: np.ndarray) -> list[Face]:
        self.seen += 1
        return [Face(np.array([60, 30, 130, 120], np.float32), 1.0, ANCHORS)] if picture.mean() > 5 else []


@dataclass
class Grey:
    """How far the frames are from those of the source, and how bright the faces are."""

    name: str = "grey"
    protocol: str = "Grey levels of whole frames."
    columns: tuple[Column, ...] = (Column("grey_error", "levels", "low"), Column("grey_level", "levels"))
    opened: int = 0

    def open(self, case: Case) -> "GreyTally":
        self.opened += 1
        return GreyTally(case)


class GreyTally:
    def __init__(self, case: Case) -> None:
        self.case, self.errors, self.levels = case, [], []

    def add(self, chunk: Chunk) -> None:
        self.errors += np.abs(chunk.frames.astype(float) - chunk.source_frames).mean((1, 2, 3)).tolist()
        self.levels += chunk.faces.float().mean((1, 2, 3)).tolist()

    def finish(self) -> dict[str, float | None]:
        return {"grey_error": float(np.mean(self.errors)), "grey_level": float(np.mean(self.levels))}


class Fussy:
    """A measure that one video is too short for."""

    name, protocol, columns = "fussy", "Looks at names.", (Column("fuss"),)

    def open(self, case: Case) -> "FussyTally":
        return FussyTally(case)


class FussyTally:
    def __init__(self, case: Case) -> None:
        self.case = case

    def add(self, chunk: Chunk) -> None:
        if self.case.name == "one":
            raise InputError(f"{self.case.video} is too short")

    def finish(self) -> dict[str, float]:
        return {"fuss": 1.0}


class GreySets:
    """The distance of sets of grey levels."""

    name, protocol, column = "grey_set", "Frechet distance of grey levels.", Column("grey_set", "", "low")

    def open(self, case: Case) -> "SetTally":
        return SetTally()

    def compare(self, made: list[np.ndarray], real: list[np.ndarray]) -> float:
        return set_distance(made, real)


class SetTally:
    def __init__(self) -> None:
        self.levels: list[np.ndarray] = []

    def add(self, chunk: Chunk) -> None:
        self.levels.append(chunk.frames.mean((1, 2), dtype=np.float64))

    def finish(self) -> np.ndarray:
        return np.concatenate(self.levels)


def write_clip(path: Path, shift: int = 0, frames: int = FRAMES, sound: bool = True) -> Path:
    """A clip whose brightness tells which one it is."""
    pictures = [np.clip(frame.astype(int) + shift, 0, 255).astype(np.uint8) for frame in smooth_frames(frames, 144, 192)]
    silent = encode_frames(path.with_suffix(".mkv"), pictures, "null", "-c:v", "libx264", "-crf", "10", "-preset", "ultrafast")
    tone = ["-f", "lavfi", "-i", f"sine=frequency={400 + 10 * shift}:sample_rate=16000:duration={frames / 25}"] if sound else []
    run_ffmpeg("-i", silent, *tone, "-c:v", "copy", *(["-c:a", "aac"] if sound else []), path)
    silent.unlink()
    return path


class Copier:
    """In the place of a pipeline: the source with another sound, its colours changed by `filters`."""

    def __init__(self, filters: str = "null") -> None:
        self.filters, self.jobs = filters, []

    def __call__(self, video: Path, sound: Path, made: Path, options: object) -> SimpleNamespace:
        self.jobs.append(made.stem)
        if made.stem.startswith("stubborn"):
            raise RuntimeError("the machine is on fire")
        made.parent.mkdir(parents=True, exist_ok=True)
        encoded = ["-vf", self.filters, "-c:v", "libx264", "-crf", "10", "-preset", "ultrafast"]
        run_ffmpeg("-i", video, "-i", sound, "-map", "0:v", "-map", "1:a", *encoded, "-c:a", "aac", "-shortest", made)
        return SimpleNamespace(frames=FRAMES, generated=FRAMES, warnings=())


def copying_subject(folder: Path, copier: Copier) -> Subject:
    """The copier as what is evaluated."""
    videos = GeneratedVideos(folder / "generated", {"filters": copier.filters}, lambda: copier)
    looker = FaceClips(FixedFace(), 64)
    return Subject(lambda pair: videos.say(pair.name, pair.source, pair.audio), {"filters": copier.filters}, {}, looker, ("A copier.",))


def grey_measures() -> Available:
    """All measures of this file; one is missing."""
    missing = [Missing("sharpness", "checkpoints/sharp.pth is missing: get it from its authors.")]
    return Available([Grey(), Fussy()], [GreySets()], missing)
