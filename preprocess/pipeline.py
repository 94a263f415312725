"""The eight steps in order, and a run from the input folder to the report."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError, OutputError, WeightsError, first_line
from latentsync.media.files import STAGING_PREFIX, VIDEO_EXTENSIONS, FolderLock
from latentsync.media.probe import probe
from latentsync.third_party.hyperiqa import SIDE as JUDGED_SIDE
from latentsync.weights import CHECKPOINTS, WEIGHTS, weights_path
from preprocess import clip_writer as encode
from preprocess.manifest import (
    CRASHED,
    FAILED,
    TIMED_OUT,
    Manifest,
    Places,
    RawFile,
    drop_stale,
    open_manifest,
    reopen_lost,
    reopen_rejected,
)
from preprocess.runner import Executor, LocalExecutor, PipelineProgress, Run, RunOptions
from preprocess.step import ClipFile, Fact, Outcome, Rejected, Step, StepDefinition, Worker, plan_steps
from preprocess.steps.decode_check import open_decode_check
from preprocess.steps.resample import open_resample
from preprocess.steps.segments import open_segments
from preprocess.steps.shots import open_shots

if TYPE_CHECKING:
    from preprocess.steps.affine import Affine
    from preprocess.steps.av_sync import AvSync
    from preprocess.steps.resolution import HighResolution
    from preprocess.steps.visual_quality import VisualQuality

KINDS = ("local", "ray")
_GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))  # of NVIDIA, of Windows' Linux, of AMD


@dataclass(frozen=True)
class WorkerConfig:
    """Who works.

    Attributes:
        kind: of `KINDS`.
        workers: for steps that need the CPU; 0: one for each processor.
        gpu_workers: for steps with a network; 0: one for each GPU.
        timeout: seconds that a step may spend on one clip.
        ray_address: of a cluster, such as "auto"; None starts Ray on this machine.
    """

    kind: str = "local"
    workers: int = 0
    gpu_workers: int = 0
    timeout: float = 1800.0
    ray_address: str | None = None


def executor_maker(crew: WorkerConfig) -> Callable[[Sequence[Step]], Executor]:
    """What makes the executor for the steps of a run. Raises InputError where Ray is asked for and missing."""
    if crew.kind == "local":
        return lambda steps: LocalExecutor(steps, crew.workers or processors(), gpu_devices(crew.gpu_workers), crew.timeout)
    try:
        from preprocess.ray_runner import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("--executor ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from None
    return lambda steps: RayExecutor(steps, crew.workers, crew.gpu_workers, crew.ray_address, crew.timeout)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_devices(workers: int) -> list[str]:
    """A torch device for each process of steps with a network, over the visible GPUs in turn; empty where there is none."""
    if not any(place.exists() for place in _GPU_DRIVERS):  # saves the import of torch
        return []
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{k % count}" for k in range(workers or count)] if count else []


logger = logging.getLogger("preprocess.pipeline")
NO_MEDIA = frozenset(  # endings of files that are no video for certain: passed over without a row in the manifest
    {
        *(".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".html", ".htm", ".xml", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini"),
        *(".cfg", ".csv", ".tsv", ".log", ".py", ".sh", ".ipynb", ".srt", ".vtt", ".ass", ".sub", ".nfo", ".url"),
        *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".svg", ".ico", ".psd"),
        *(".npy", ".npz", ".pkl", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".parquet", ".sqlite", ".db"),
        *(
            ".zip",
            ".tar",
            ".gz",
            ".tgz",
            ".bz2",
            ".xz",
            ".zst",
            ".7z",
            ".rar",
            ".part",
            ".crdownload",
            ".torrent",
            ".md5",
            ".sha1",
            ".sha256",
        ),
    }
)
NO_VIDEO = "not a video"
_AT_ONCE = 10_000  # names of one folder that are held in memory and sorted; a folder with more comes in several sorted parts


def find_raw_files(root: Path) -> Iterator[RawFile]:
    """Files below `root` that may hold video; hidden files and links to folders are passed over.

    Raises InputError where `root` is no folder that can be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the folder that holds the raw videos with --input_dir")
    folders = [root]
    while folders:
        folder = folders.pop()
        inner: list[Path] = []
        for entry in _entries(folder, is_root=folder == root):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner.append(folder / entry.name)
            elif entry.is_dir():
                logger.warning("%s is a link to a folder and is passed over: give it as --input_dir of its own", entry.path)
            elif Path(entry.name).suffix.lower() not in NO_MEDIA:
                yield _raw_file(root, entry)
        folders.extend(reversed(inner))


def _entries(folder: Path, is_root: bool) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, sorted by name as far as memory allows."""
    try:
        with os.scandir(folder) as found:
            while some := sorted(islice(found, _AT_ONCE), key=lambda entry: entry.name):
                yield from some
    except OSError as error:
        sentence = f"{folder} cannot be read ({(error.strerror or str(error)).lower()})"
        if is_root:
            raise InputError(f"{sentence}: give yourself permission to read it") from None
        logger.warning("%s and is passed over", sentence)


def _raw_file(root: Path, entry: os.DirEntry[str]) -> RawFile:
    path = Path(entry.path)
    source = path.relative_to(root).as_posix()
    try:
        status = entry.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
    except OSError:  # a link to nowhere: the first step says so
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


class LookFirst:
    """The first step, after a look whether a file with an unusual ending is media at all."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """As the step itself; a file that ffmpeg does not know is rejected as no video."""
        if clip.path.suffix.lower() not in VIDEO_EXTENSIONS:
            try:
                probe(clip.path)
            except InputError as error:
                return [Rejected(NO_VIDEO, str(error))]
        return self._worker(clip, folder)


def open_looking_first(device: str, stage: StepDefinition) -> LookFirst:
    """Open a first step that looks first; its `open` once `stage` is bound."""
    return LookFirst(stage.open(device))


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


FILTERS = ("decode_check", "high_resolution", "av_sync", "visual_quality")  # steps that others do not need: they may be left out


@dataclass(frozen=True)
class StepOptions:
    """What a user can choose.

    Attributes:
        resolution: pixels a side of the faces that come out, and least size of the faces that go in.
        min_seconds, max_seconds: lengths of the pieces that shots are cut into; the second is at least twice the first.
        sync_conf_threshold: least confidence of SyncNet v2.
        max_offset: frames that mouth and sound may be apart; they are then put together.
        quality_threshold: least score of hyperIQA.
        skip: steps to leave out, of `FILTERS`.
        checkpoints: folder of weight files; None: the project's.
    """

    resolution: int = 256
    min_seconds: float = 5.0
    max_seconds: float = 10.0
    sync_conf_threshold: float = 3.0
    max_offset: int = 6
    quality_threshold: float = 40.0
    skip: frozenset[str] = frozenset()
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        """Raises InputError for options that cannot be honoured."""
        if unknown := sorted(self.skip - set(FILTERS)):
            raise InputError(f"The step {unknown[0]!r} cannot be left out: name some of {', '.join(FILTERS)}.")
        if self.resolution < 32 or self.resolution % 8:
            raise InputError(f"The resolution {self.resolution} cannot be trained on: use a multiple of 8 such as 256 or 512.")
        if not 0 < 2 * self.min_seconds <= self.max_seconds:
            lengths = f"{self.min_seconds:g} to {self.max_seconds:g} s"
            raise InputError(f"Not every shot can be cut into pieces of {lengths}: let the longest be at least twice the shortest.")
        if not 0 <= self.max_offset <= 15:
            raise InputError(f"An offset of {self.max_offset} frames cannot be found: SyncNet looks 15 frames either way.")


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


ROOT = Path(__file__).parents[2]
_ENCODE: dict[str, Fact] = {"fps": VIDEO_FPS, "sample_rate": AUDIO_SAMPLE_RATE, "crf": encode.CRF, "preset": encode.PRESET}


def all_stages(options: StepOptions) -> list[StepDefinition]:
    """The steps that are not left out, in order."""
    if options.resolution < JUDGED_SIDE and "visual_quality" not in options.skip:
        raise InputError(f"hyperIQA judges pictures of {JUDGED_SIDE} pixels or more: use a larger resolution or skip visual_quality.")
    stages = [*_media_stages(options), *_face_stages(options), *_filter_stages(options)]
    return [stage for stage in stages if stage.name not in options.skip]


def check_weights(stages: list[StepDefinition], options: StepOptions) -> None:
    """Stop before the first clip where a step lacks its weights. Raises WeightsError."""
    missing = {stage.name: [name for name in stage.weights if not _file(options, name).is_file()] for stage in stages}
    missing = {stage: names for stage, names in missing.items() if names}
    if missing:
        files = "; ".join(f"{_file(options, name)} ({WEIGHTS[name].origin})" for names in missing.values() for name in names)
        raise WeightsError(f"These weights are missing: {files}. Put them there, or go on without those steps: --skip {','.join(missing)}")


def _media_stages(options: StepOptions) -> list[StepDefinition]:
    shortest, longest = options.min_seconds, options.max_seconds
    return [
        StepDefinition("decode_check", "", partial(open_decode_check, shortest), {"min_seconds": shortest}),
        StepDefinition("resample", "resampled", open_resample, _ENCODE),
        StepDefinition("shots", "shot", open_shots),
        StepDefinition(
            "segments", "segmented", partial(open_segments, shortest, longest), {"min_seconds": shortest, "max_seconds": longest}
        ),
    ]


def _face_stages(options: StepOptions) -> list[StepDefinition]:
    size, s3fd, fan = options.resolution, _file(options, "s3fd"), _file(options, "2dfan4")
    detector = "face-alignment" if s3fd.is_file() and fan.is_file() else "mtcnn"  # decided here, so that the manifest can say which
    common = {"resolution": size, "detector": detector}
    look = partial(high_resolution, detector, s3fd, fan, size)
    align = partial(affine, detector, s3fd, fan, size, options.min_seconds)
    return [
        StepDefinition("high_resolution", "high_resolution", look, common, "gpu"),
        StepDefinition("affine", "affine_transformed", align, {**common, **_ENCODE, "min_seconds": options.min_seconds}, "gpu"),
    ]


def _filter_stages(options: StepOptions) -> list[StepDefinition]:
    confidence, offset, quality = options.sync_conf_threshold, options.max_offset, options.quality_threshold
    sync = partial(av_sync, _file(options, "sfd_face"), _file(options, "syncnet_v2"), confidence, offset)
    judge = partial(visual_quality, _file(options, "hyperiqa"), quality)
    wanted = {"min_confidence": confidence, "max_offset": offset}
    return [
        StepDefinition("av_sync", f"av_synced_{confidence:g}", sync, wanted, "gpu", ("sfd_face", "syncnet_v2")),
        StepDefinition("visual_quality", "high_visual_quality", judge, {"threshold": quality}, "gpu", ("hyperiqa",)),
    ]


def _file(options: StepOptions, name: str) -> Path:
    return weights_path(name, options.checkpoints or ROOT / CHECKPOINTS)


logger = logging.getLogger("preprocess.pipeline")
_OLD = 600.0  # seconds after which an unfinished file of a run that died is no longer anybody's work


@dataclass(frozen=True)
class PipelineConfig:
    """What a run is to do.

    Attributes:
        stages: in order.
        input: folder of raw files, only read.
        output: folder that gets the steps' folders and the manifest.
        options: see there.
        try_again: give clips that timed out or crashed in a run before another chance.
        settings: what the manifest notes about the run.
        show_progress: whether a line tells how far it is.
    """

    stages: Sequence[StepDefinition]
    input: Path
    output: Path
    options: RunOptions = field(default_factory=RunOptions)
    try_again: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    show_progress: bool = False


def run_pipeline(order: PipelineConfig, make_executor: Callable[[Sequence[Step]], Executor]) -> Path:
    """Do what is left to do; the folder with the results.

    Raises:
        InputError: the folders cannot be used, or another run is at work in them.
        OutputError: the disk is full, or cannot be written.
        LatentSyncError: a step cannot work at all.
    """
    places = Places(order.input.resolve(), order.output.resolve())
    first, *others = order.stages
    stages = [replace(first, open=partial(open_looking_first, stage=first)), *others]
    steps = plan_steps(stages, places.output)
    check_places(places, steps)
    with run_lock(places.output), open_manifest(places) as manifest:
        died = manifest.died()
        if died:
            logger.info("The run before did not come to its end: going on where it stopped")
            sweep(steps, before=time.time() - _OLD)
        drop_stale(manifest, steps)
        claim_folders(manifest, steps)
        reopen_lost(manifest, steps)
        reopen_rejected(manifest, (FAILED, CRASHED, TIMED_OUT) if order.try_again else (FAILED,))
        _work(order, manifest, steps, make_executor, died)
    return places.output


def _work(
    order: PipelineConfig, manifest: Manifest, steps: list[Step], make_executor: Callable[[Sequence[Step]], Executor], died: bool
) -> None:
    """Scan and work; note in the manifest how it went, however it went."""
    scan = find_raw_files(manifest.places.input)
    scan = chain(list(islice(scan, 1)), scan)  # a folder that cannot be read is refused before anyone is asked to work
    number = manifest.begin_run(order.settings, steps)
    progress = PipelineProgress([step.name for step in steps], order.show_progress)
    ending = "interrupted"
    run = None
    try:
        executor = make_executor(steps)
        try:
            run = Run(manifest, steps, scan, executor, progress, number, order.options)
            run.go()
            ending = "done"
        finally:
            executor.close(at_once=ending != "done")
    except LatentSyncError as error:
        ending = first_line(error)
        raise
    finally:
        progress.close()
        if died or ending != "done" or (run is not None and run.killed):
            sweep(steps, before=time.time() + 1)  # nobody is at work now
        numbers = {"seconds": progress.seconds(), "works": progress.works, "raw_hours": progress.raw_hours()}
        manifest.end_run(number, ending, cpu_idle=progress.cpu_idle(), **numbers)
