"""Clips that come twice: the same person, movements and light, but other words; only rendered people can do that."""

from collections.abc import Iterable
from pathlib import Path

from latentsync.data.catalog import ClipInfo

TWIN = "_other"  # what a twin's name has more than its clip's


def twin_path(path: Path) -> Path:
    """Where the twin of a clip lies, whichever of the two it is."""
    stem = path.stem.removesuffix(TWIN) if path.stem.endswith(TWIN) else path.stem + TWIN
    return path.with_name(stem + path.suffix)


def find_twins(clips: Iterable[ClipInfo]) -> dict[Path, ClipInfo]:
    """Clip -> its twin, for those that have one among the clips."""
    by_path = {clip.path: clip for clip in clips}
    return {path: by_path[twin_path(path)] for path in by_path if twin_path(path) in by_path}
