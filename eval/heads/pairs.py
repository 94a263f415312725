"""Pairs of rendered clips: the same person, movements and light with other words; their truth, their aligned faces, their sound."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.findings import sidecar
from latentsync.data.twins import TWIN, twin_path
from latentsync.errors import InputError
from latentsync.faces.align import on_face
from latentsync.faces.warp import warp_faces
from latentsync.media.audio import read_audio
from latentsync.media.files import walk_media
from latentsync.media.video import VideoSource
from latentsync.models.mouth_reader import FIRST_POINT, POINTS
from latentsync.spectrogram import log_mel

_ADVICE = "render pairs with `python -m embedded.talking_heads clips --pairs --split test`"


@dataclass(frozen=True)
class Pair:
    """Two clips of one person."""

    name: str  # the clip's path below its folder, without an extension
    video: Path  # what is shown
    twin: Path  # whose words are to be said, and how that truly looks


@dataclass(frozen=True)
class Truth:
    """What is known of a clip, frame by frame."""

    landmarks: np.ndarray  # n 68 2, pixels; 0 = outer edge of the first pixel
    lip_gap: Tensor  # n, centimetres
    split: str  # to which people and sentences it belongs: train, validation, test

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.landmarks)


def find_pairs(folder: Path, limit: int | None = None) -> list[Pair]:
    """The pairs below a folder, by name, the first `limit` of them. Raises InputError where there is none."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: give 1 or more, or leave it out")
    videos = (path for path in walk_media(folder, {".mp4"}) if not path.stem.endswith(TWIN))
    pairs = [Pair(str(path.relative_to(folder).with_suffix("")), path, twin_path(path)) for path in videos if twin_path(path).is_file()]
    if not pairs:
        raise InputError(f"{folder} holds no clip with a twin (*{TWIN}.mp4): {_ADVICE}")
    return pairs[:limit]


def read_truth(clip: Path) -> Truth:
    """The truth beside a rendered clip. Raises InputError where it is missing or tells no full face."""
    path = sidecar(clip)
    try:
        content = json.loads(path.read_bytes())
        landmarks = np.asarray(content["landmarks"], dtype=np.float64)
        gap = torch.tensor(content["lip_gap_cm"], dtype=torch.float64)
        split = str(content.get("plan", {}).get("split", "unknown"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} tells no landmarks and lips ({type(error).__name__}): {_ADVICE}") from None
    if landmarks.shape[1:] != (68, 2) or not len(landmarks) or gap.shape != landmarks.shape[:1] or not np.isfinite(landmarks).all():
        raise InputError(f"{path} does not tell 68 landmarks and the lips of each frame: {_ADVICE}")
    return Truth(landmarks, gap, split)


def mouth_points(landmarks: np.ndarray, matrices: Tensor, resolution: int) -> Tensor:
    """The mouth among landmarks n 68 2, on the aligned faces: float32 n 20 2 in units of the face's side, as a mouth reader tells them."""
    mouth = landmarks[:, FIRST_POINT : FIRST_POINT + POINTS]
    return torch.from_numpy((on_face(mouth, matrices.numpy(), resolution) + 0.5) / np.float32(resolution))


def aligned_faces(video: Path, matrices: Tensor, resolution: int) -> Tensor:
    """Faces of a video by given transforms n 2 3: uint8 n h w 3; the pictures are decoded one by one. InputError: it has fewer frames."""
    frames: Iterator[np.ndarray] = VideoSource(video).frames(0, len(matrices))
    faces = [warp_faces([frame], matrices[k : k + 1], resolution)[0] for k, frame in enumerate(frames)]
    if len(faces) < len(matrices):
        raise InputError(f"{video} has {len(faces)} frames and its clip {len(matrices)}: delete it, so that it is made again")
    return torch.stack(faces)


def clip_mel(clip: Path) -> Tensor:
    """What SyncNet hears of a clip: float32 80 t. Raises InputError."""
    samples = read_audio(clip)
    if not len(samples):
        raise InputError(f"{clip} holds no sound: {_ADVICE}")
    return log_mel(samples).float()
