"""Who may write where: one run in an output folder, step folders that are the pipeline's own, and no stumps of runs that died."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from latentsync.errors import InputError, OutputError
from latentsync.media.files import STAGING_PREFIX, FolderLock
from preprocess.manifest import Manifest, Places
from preprocess.plan import Step

logger = logging.getLogger("preprocess.pipeline")

_LOCK = ".pipeline-lock"
_CLAIM = "folder:"  # and the folder's name: the key of `meta` that says that the pipeline made it


def run_lock(folder: Path) -> FolderLock:
    """Keeps a second run out of an output folder."""
    return FolderLock(folder, _LOCK, "is in use by another run: wait for its end, or give another --output_dir")


def check_places(places: Places, steps: Sequence[Step]) -> None:
    """Refuse folders that would mix raw files and results. Raises InputError."""
    raw, output = places.input, places.output
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder: give the folder that holds the raw videos with --input_dir")
    if output.is_relative_to(raw):
        raise InputError(f"{output} lies inside {raw}, which is never written to: give an --output_dir outside it")
    for step in steps:
        folder = step.folder.resolve()
        if step.stage.folder and (raw.is_relative_to(folder) or folder.is_relative_to(raw)):
            raise InputError(f"{folder} is where the step {step.name} writes and cannot be the input: give another --output_dir")


def claim_folders(manifest: Manifest, steps: Sequence[Step]) -> None:
    """Make the folders of the steps; refuse one that was there before and holds files of others. Raises InputError, OutputError."""
    for step in (step for step in steps if step.stage.folder):
        key = f"{_CLAIM}{step.stage.folder}"
        if manifest.connection.execute("SELECT 1 FROM meta WHERE key = ?", (key,)).fetchone() is None:
            if step.folder.is_dir() and any(step.folder.iterdir()):
                raise InputError(f"{step.folder} holds files that this pipeline did not make: move them, or give another --output_dir")
            with manifest.writing() as connection:
                connection.execute("INSERT INTO meta (key, value) VALUES (?, '')", (key,))
        try:
            step.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {step.folder}: {(error.strerror or str(error)).lower()}") from None


def sweep(steps: Sequence[Step], before: float) -> int:
    """Remove stumps in the steps' folders (hidden files that a dead process was writing) last touched before a time; how many."""
    removed = 0
    for step in (step for step in steps if step.stage.folder):
        for folder, folders, names in os.walk(step.folder):
            for name in (name for name in [*names, *folders] if name.startswith(STAGING_PREFIX)):
                path = Path(folder) / name
                with contextlib.suppress(OSError):  # gone, or a folder with something in it
                    if path.lstat().st_mtime < before:
                        path.rmdir() if path.is_dir() else path.unlink()
                        removed += 1
    if removed:
        logger.info("%d unfinished files of works that were ended were removed", removed)
    return removed
