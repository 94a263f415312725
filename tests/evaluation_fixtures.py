"""A tiny evaluation: clips of soft colours, a face that is always in one place, a model that copies, metrics of grey levels."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from media_fixtures import encode_frames, run_ffmpeg, smooth_frames
from omegaconf import OmegaConf
from training_fixtures import FRAMES as WINDOW
from training_fixtures import SYNCNET

from eval.cases import GeneratedVideos
from eval.measure import FaceClips, Subject
from eval.metrics.base import Case, Chunk, Column, Metric, Numbers, SetMetric
from eval.metrics.table import LoadedMetrics
from latentsync.config import load_syncnet_config
from latentsync.errors import InputError
from latentsync.faces.detector import Face
from latentsync.models.syncnet import make_syncnet

FRAMES = 20
ANCHORS = np.array([[80, 60], [110, 60], [95, 80]], np.float32)


class FixedFace:
    """A detector that finds the same face everywhere, except in black pictures."""

    name, weights, smoothing, long_side = "fixed", "", "none", None

    def __init__(self) -> None:
        self.seen = 0

    def detect(self, picture: np.ndarray) -> list[Face]:
        self.seen += 1
        return [Face(np.array([60, 30, 130, 120], np.float32), 1.0, ANCHORS)] if picture.mean() > 5 else []


@dataclass
class Grey(Metric):
    """How far the frames are from those of the source, and how bright the faces are."""

    name: str = "grey"
    protocol: str = "Grey levels of whole frames."
    columns: tuple[Column, ...] = (Column("grey_error", "levels", "low"), Column("grey_level", "levels"))
    runs: int = 0

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        errors = np.abs(chunk.frames.astype(float) - chunk.source_frames).mean((1, 2, 3))
        return np.stack([errors, chunk.faces.float().mean((1, 2, 3)).numpy()], 1)

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        self.runs += 1
        return super().of_video(case, rows)


class Fussy(Metric):
    """A metric that one video is too short for."""

    name, protocol, columns = "fussy", "Checks names.", (Column("fuss"),)

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        if case.name == "one":
            raise InputError(f"{case.video} is too short")
        return {"fuss": 1.0}


class GreySets(SetMetric):
    """The distance of sets of grey levels."""

    name, protocol, columns = "grey_set", "Frechet distance of grey levels.", (Column("grey_set", "", "low"),)

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        return chunk.frames.mean((1, 2), dtype=np.float64)


def write_clip(path: Path, shift: int = 0, frames: int = FRAMES, sound: bool = True) -> Path:
    """A clip whose brightness tells which one it is; pictures change less than a face that is covered."""
    pictures = [np.clip(frame.astype(int) // 4 + 90 + shift, 0, 255).astype(np.uint8) for frame in smooth_frames(frames, 144, 192)]
    silent = encode_frames(path.with_suffix(".mkv"), pictures, "null", "-c:v", "libx264", "-crf", "10", "-preset", "ultrafast")
    tone = ["-f", "lavfi", "-i", f"sine=frequency={400 + 10 * shift}:sample_rate=16000:duration={frames / 25}"] if sound else []
    run_ffmpeg("-i", silent, *tone, "-c:v", "copy", *(["-c:a", "aac"] if sound else []), path)
    silent.unlink()
    return path


class Copier:
    """In the place of a pipeline: the source with another sound, its colours changed by `filters`."""

    def __init__(self, filters: str = "null") -> None:
        self.filters, self.jobs = filters, []

    def __call__(self, video: Path, sound: Path, output: Path, options: object) -> SimpleNamespace:
        self.jobs.append(output.stem)
        if output.stem.startswith("stubborn"):
            raise RuntimeError("the machine is on fire")
        output.parent.mkdir(parents=True, exist_ok=True)
        encoded = ["-vf", self.filters, "-c:v", "libx264", "-crf", "10", "-preset", "ultrafast"]
        run_ffmpeg("-i", video, "-i", sound, "-map", "0:v", "-map", "1:a", *encoded, "-c:a", "aac", "-shortest", output)
        return SimpleNamespace(frames=FRAMES, generated=FRAMES, warnings=())


def copying_subject(folder: Path, copier: Copier) -> Subject:
    videos = GeneratedVideos(folder / "generated", {"filters": copier.filters}, lambda: copier)
    return Subject(
        lambda pair: videos.generate(pair.name, pair.source, pair.audio),
        {"filters": copier.filters},
        {},
        FaceClips(FixedFace(), 64),
        ("A copier.",),
    )


def grey_metrics() -> LoadedMetrics:
    """All metrics of this file; one is missing."""
    missing = {"sharpness": "checkpoints/sharp.pth is missing: get it from its authors."}
    return LoadedMetrics([Grey(), Fussy(), GreySets()], missing)


def write_syncnet(folder: Path) -> tuple[Path, Path]:
    """A SyncNet of pixels with random weights: its configuration and the weights."""
    config, weights = folder / "syncnet.yaml", folder / "syncnet.pt"
    torch.manual_seed(0)
    data = {"resolution": 64, "num_frames": WINDOW, "train_data_dir": "clips"}
    OmegaConf.save(OmegaConf.create({"data": data, "model": SYNCNET}), config)
    torch.save({"state_dict": make_syncnet(load_syncnet_config(config).model).state_dict()}, weights)
    return config, weights
