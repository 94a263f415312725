"""Opens the steps that have networks; only who opens one imports what takes seconds and hundreds of megabytes."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preprocess.steps.affine import Affine
    from preprocess.steps.av_sync import AvSync
    from preprocess.steps.resolution import HighResolution
    from preprocess.steps.visual_quality import VisualQuality


def high_resolution(detector: str, s3fd: Path, fan: Path, resolution: int, device: str) -> "HighResolution":
    """See `preprocess.steps.resolution`."""
    from preprocess.steps.resolution import open_high_resolution

    return open_high_resolution(detector, s3fd, fan, resolution, device)


def affine(detector: str, s3fd: Path, fan: Path, resolution: int, min_seconds: float, device: str) -> "Affine":
    """See `preprocess.steps.affine`."""
    from preprocess.steps.affine import open_affine

    return open_affine(detector, s3fd, fan, resolution, min_seconds, device)


def av_sync(s3fd: Path, syncnet: Path, min_confidence: float, max_offset: int, device: str) -> "AvSync":
    """See `preprocess.steps.av_sync`."""
    from preprocess.steps.av_sync import open_av_sync

    return open_av_sync(s3fd, syncnet, min_confidence, max_offset, device)


def visual_quality(weights: Path, threshold: float, device: str) -> "VisualQuality":
    """See `preprocess.steps.visual_quality`."""
    from preprocess.steps.visual_quality import open_visual_quality

    return open_visual_quality(weights, threshold, device)
