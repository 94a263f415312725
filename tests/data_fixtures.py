"""Tiny training clips: square pictures with sound, known mouth channels beside them where they are wanted."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from media_fixtures import make_clip

from latentsync.data.clip_index import Catalog, open_catalog
from latentsync.data.sampling import Batch

SECONDS, FRAMES, SIDE, CHANNELS = 3, 75, 64, 11
FACE = f"testsrc2=size={SIDE}x{SIDE}:rate=25:duration={{seconds}}"
SWEEP = "aevalsrc=0.4*sin(2*PI*t*(300+500*t)):sample_rate=16000:duration={seconds}"
SOUND = ("-c:a", "aac")


def make_training_clip(path: Path, *options: str, seconds: float = SECONDS, sound_seconds: float | None = None, face: str = FACE) -> Path:
    """One clip as the processing pipeline writes it, but for what `options` (of ffmpeg) change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = SWEEP.format(seconds=seconds if sound_seconds is None else sound_seconds)
    return make_clip(path, *SOUND, *options, picture=face.format(seconds=seconds), sound=sound)


def write_truth(clip: Path, frames: int = FRAMES) -> np.ndarray:
    """Mouth channels beside a clip, as rendered heads have them: n k."""
    values = np.round(np.random.default_rng(len(clip.name)).standard_normal((frames, CHANNELS)), 4).astype(np.float32)
    content = {"mouth": {"channels": [f"channel {k}" for k in range(CHANNELS)], "values": values.tolist()}}
    clip.with_suffix(".json").write_text(json.dumps(content))
    return values


def make_folder(folder: Path, count: int = 3) -> Path:
    """A folder of equal clips under different names, mouth channels beside each."""
    first = make_training_clip(folder / "clip0.mp4")
    for number in range(1, count):
        shutil.copy(first, folder / f"clip{number}.mp4")
    for number in range(count):
        write_truth(folder / f"clip{number}.mp4")
    return folder


def catalog_of(folder: Path, cache_dir: Path, min_frames: int = 6) -> Catalog:
    return open_catalog(folder, None, min_frames=min_frames, cache_dir=cache_dir)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())
