"""A run of the data pipeline: checks, the search for raw files, resume, the end of a run in the manifest."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from latentsync.errors import InputError, LatentSyncError, OutputError, WeightsError, first_line
from latentsync.media.files import STAGING_PREFIX, folder_lock
from preprocess.manifest import CRASHED, FAILED, TIMED_OUT, Manifest, RawFile, drop_stale, open_manifest, reopen_lost, reopen_rejected
from preprocess.runner import Executor, PipelineConfig, Run
from preprocess.step import Rejected, Step, plan_steps

logger = logging.getLogger("preprocess.pipeline")
NO_MEDIA = frozenset(  # endings of files that are no video for certain: passed over without a row in the manifest
    {
        *(".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".html", ".htm", ".xml", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini"),
        *(".cfg", ".csv", ".tsv", ".log", ".py", ".sh", ".ipynb", ".srt", ".vtt", ".ass", ".sub", ".nfo", ".url"),
        *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".svg", ".ico", ".psd"),
        *(".npy", ".npz", ".pkl", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".parquet", ".sqlite", ".db"),
        *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".part", ".crdownload", ".torrent"),
        *(".md5", ".sha1", ".sha256"),
    }
)


def run_pipeline(config: PipelineConfig, make_executor: Callable[[Sequence[Step]], Executor]) -> None:
    """Process what is not done yet, into the output folder. Raises InputError, WeightsError, OutputError, LatentSyncError."""
    raw, output = config.input.resolve(), config.output.resolve()
    steps = plan_steps(config.steps, output, config.options, config.checkpoints.resolve())
    check_weights(steps)
    check_folders(raw, output, steps)
    lock = folder_lock(output, ".pipeline-lock", "is in use by another run: wait for its end, or give another --output_dir")
    with lock, open_manifest(raw, output, [name for step in steps for name in step.definition.columns]) as manifest:
        if died := manifest.died():
            logger.info("The run before did not come to its end: going on where it stopped")
        drop_stale(manifest, steps)
        claim_folders(manifest, steps)
        reopen_lost(manifest, steps)
        reopen_rejected(manifest, (FAILED, CRASHED, TIMED_OUT) if config.try_again else (FAILED,))
        _work(Run(manifest, steps, find_raw_files(raw), config), make_executor, died)


def _work(run: Run, make_executor: Callable[[Sequence[Step]], Executor], died: bool) -> None:
    ending = "interrupted"
    try:
        executor = make_executor(run.steps)
        try:
            run.work(executor)
            ending = "done"
        finally:
            executor.close(at_once=ending != "done")
    except LatentSyncError as error:
        ending = first_line(error)
        raise
    finally:
        if died or ending != "done" or run.killed:
            remove_unfinished(run.steps)  # no worker runs any more
        run.close(ending)


def gpu_devices(workers: int) -> list[str]:
    """A torch device for each process of steps with a network, over the visible GPUs in turn; empty where there is none."""
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{k % count}" for k in range(workers or count)] if count else []


def check_weights(steps: Sequence[Step]) -> None:
    """Stop before the first clip where a step lacks its weights. Raises WeightsError."""
    if not any(step.definition.weights for step in steps):
        return
    from latentsync.weights import WEIGHTS, weights_path

    needed = [(step, name, weights_path(name, step.checkpoints)) for step in steps for name in step.definition.weights]
    missing = [(step.name, path, WEIGHTS[name].origin) for step, name, path in needed if not path.is_file()]
    if missing:
        files = "; ".join(f"{path} ({origin})" for _, path, origin in missing)
        names = ",".join(dict.fromkeys(name for name, _, _ in missing))
        raise WeightsError(f"These weights are missing: {files}. Put them there, or go on without those steps: --skip {names}")


def check_folders(raw: Path, output: Path, steps: Sequence[Step]) -> None:
    """Refuse folders that would mix raw files and results. Raises InputError."""
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder: give the folder that holds the raw videos with --input_dir")
    if output.is_relative_to(raw):
        raise InputError(f"{output} lies inside {raw}, which is never written to: give an --output_dir outside it")
    for step in (step for step in steps if step.folder_name):
        folder = step.folder.resolve()
        if raw.is_relative_to(folder) or folder.is_relative_to(raw):
            raise InputError(f"{folder} is where the step {step.name} writes and cannot be the input: give another --output_dir")


def claim_folders(manifest: Manifest, steps: Sequence[Step]) -> None:
    """Make the folders of the steps; refuse one that was there before and holds files of others. Raises InputError, OutputError."""
    for step in (step for step in steps if step.folder_name):
        key = f"folder:{step.folder_name}"  # of `meta`, which says that the pipeline made the folder
        if manifest.one("SELECT 1 FROM meta WHERE key = ?", key) is None:
            if step.folder.is_dir() and any(step.folder.iterdir()):
                raise InputError(f"{step.folder} holds files that this pipeline did not make: move them, or give another --output_dir")
            with manifest.writing() as connection:
                connection.execute("INSERT INTO meta (key, value) VALUES (?, '')", (key,))
        try:
            step.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {step.folder}: {(error.strerror or str(error)).lower()}") from None


def remove_unfinished(steps: Sequence[Step]) -> None:
    """Remove from the steps' folders the hidden files that processes were writing when they died."""
    removed = 0
    for step in (step for step in steps if step.folder_name):
        for path in step.folder.rglob(f"{STAGING_PREFIX}*"):
            with contextlib.suppress(OSError):  # gone, or a folder with something in it
                path.rmdir() if path.is_dir() else path.unlink()
                removed += 1
    if removed:
        logger.info("%d unfinished files of tasks that were ended were removed", removed)


def find_raw_files(root: Path) -> Iterator[RawFile]:
    """Files below `root` that may hold video, without hidden files and links to folders. Raises InputError where `root` cannot be read."""

    def refuse(error: OSError) -> None:
        sentence = f"{error.filename} cannot be read ({(error.strerror or str(error)).lower()})"
        if Path(error.filename) == root:
            raise InputError(f"{sentence}: give yourself permission to read it")
        logger.warning("%s and is passed over", sentence)

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder) / name for name in folders):
            if path.is_symlink():
                logger.warning("%s is a link to a folder and is passed over: give it as --input_dir of its own", path)
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() not in NO_MEDIA:
                yield _raw_file(root, Path(folder) / name)


def _raw_file(root: Path, path: Path) -> RawFile:
    source = path.relative_to(root).as_posix()
    try:
        status = path.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:  # a link to nowhere, which the first step rejects
        stamp = "gone"
    try:
        source.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(source).decode("utf-8", "backslashreplace")
        return RawFile(shown, stamp, Rejected("unreadable name", f"{shown} is no name in UTF-8: rename the file"))
    if source.splitlines() != [source]:
        return RawFile(source, stamp, Rejected("unreadable name", f"{source!r} has a line break in its name: rename the file"))
    original = path.with_suffix("")
    if path.suffix.lower() == ".mp4" and original.suffix.lower() not in ("", ".mp4", *NO_MEDIA) and original.is_file():
        why = f"{source} would get the name that {original.name} beside it gets as .mp4: rename one of them"
        return RawFile(source, stamp, Rejected("name taken", why))
    return RawFile(source, stamp)
