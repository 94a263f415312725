"""`open_catalog`: which clips there are to train on, and why the others are none."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from latentsync.constants import VIDEO_FPS
from latentsync.data.findings import Findings, Notebook, look_and_stamp, one_at_a_time, scan_threads
from latentsync.errors import InputError
from latentsync.media.files import check_readable, read_paths, walk_media

logger = logging.getLogger(__name__)

FPS_TOLERANCE = 0.01
LEAST_COVER = 0.8  # share of the picture that its sound has to reach
LARGEST_LAG = 0.75 / VIDEO_FPS  # seconds between the beginnings of picture and sound
_AT_ONCE = 512  # clips that are looked at before their findings are kept
_TOLD = 20  # rejected clips that are named in the log
_ADVICE = (
    f"clips are square videos of one aligned face at {VIDEO_FPS} frames a second with sound, as the data processing pipeline writes them"
)


@dataclass(frozen=True)
class ClipInfo:
    """One clip that can be trained on."""

    path: Path  # absolute
    frames: int  # that both picture and sound cover
    seconds: float  # of sound
    mouth: bool = False  # whether the .json beside it tells the mouth's channels
    side: int = 0  # of its square picture, pixels


@dataclass(frozen=True)
class Catalog:
    """All clips of a training, in an order that does not change."""

    clips: tuple[ClipInfo, ...]
    rejected: dict[Path, str] = field(default_factory=dict)  # why, in words

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)


@dataclass(frozen=True)
class _Rejection:
    kind: str  # what many clips may share
    why: str


def open_catalog(folder: Path | None, fileslist: Path | None, *, min_frames: int, cache_dir: Path, show_progress: bool = False) -> Catalog:
    """Look for clips in a folder and all folders below, and in a text file that names one clip a line.

    Each clip is opened once; what was found is remembered in `cache_dir`, so that the next start is quick.

    Args:
        folder: of clips.
        fileslist: paths relative to its own folder, or absolute, as `read_paths` reads them.
        min_frames: shorter clips are rejected.
        cache_dir: may be shared by processes that start together.

    Raises:
        InputError: neither is given, one is missing, or not one clip is left.
        OutputError: `cache_dir` cannot be written.
    """
    if folder is None and fileslist is None:
        raise InputError(
            "there is nothing to train on: give data.train_data_dir, a folder of clips, or data.train_fileslist, a list of them"
        )
    rejected: dict[Path, _Rejection] = {}
    paths = _gather(folder, fileslist, rejected)
    with one_at_a_time(Path(cache_dir)):
        clips = _look_at_all(paths, Notebook(cache_dir), min_frames, rejected, show_progress)
    where = " and ".join(str(place) for place in (folder, fileslist) if place is not None)
    counts = Counter(rejection.kind for rejection in rejected.values())
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(5))
    if not clips:
        raise InputError(f"{where} {'holds no clip' if not summary else f'holds no clip that can be used ({summary})'}: {_ADVICE}")
    if rejected:
        logger.warning("%s: %d of %d clips are left out: %s", where, len(rejected), len(clips) + len(rejected), summary)
        for path, rejection in islice(rejected.items(), _TOLD):
            logger.info("%s is left out: it %s", path, rejection.why)
    return Catalog(tuple(clips), {path: rejection.why for path, rejection in rejected.items()})


def _gather(folder: Path | None, fileslist: Path | None, rejected: dict[Path, _Rejection]) -> list[Path]:
    """Absolute paths of all clips that are there, each once; lines of the list that name none go to `rejected`."""
    found: dict[Path, None] = {}
    if folder is not None:
        found.update((_absolute(path), None) for path in walk_media(folder))
    for number, written in read_paths(fileslist) if fileslist is not None else ():
        path = _absolute(written)
        if path in found or path in rejected:
            continue
        if path.is_file():
            found[path] = None
        else:
            rejected[path] = _Rejection("named in the list but missing", f"is no file (line {number} of {fileslist})")
    return list(found)


def _absolute(path: Path) -> Path:
    """Without `..` and as written otherwise: a link stays a link."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _look_at_all(
    paths: list[Path], book: Notebook, min_frames: int, rejected: dict[Path, _Rejection], show_progress: bool
) -> list[ClipInfo]:
    """The clips among `paths` that can be used; the others go to `rejected`."""
    clips: list[ClipInfo] = []
    with (
        ThreadPoolExecutor(scan_threads(), thread_name_prefix="clips") as pool,
        tqdm(total=len(paths), unit="clip", desc="Looking at clips", disable=not show_progress) as bar,
    ):
        for some in _chunks(paths, _AT_ONCE):
            known = dict(zip(some, pool.map(_recall, some, [book] * len(some)), strict=True))
            unknown = [path for path, findings in known.items() if findings is None]
            looked = dict(zip(unknown, pool.map(look_and_stamp, unknown), strict=True))
            if looked:
                book.add(looked)
            for path, recalled in known.items():
                findings = looked[path][1] if recalled is None else recalled
                rejection = _judge(findings, min_frames)
                if rejection:
                    rejected[path] = rejection
                else:
                    clips.append(ClipInfo(path, usable_frames(findings), findings.seconds or 0.0, findings.has_mouth, findings.width))
            bar.update(len(some))
    return clips


def _recall(path: Path, book: Notebook) -> Findings | None:
    """What is known of a clip without opening it; None: nothing yet."""
    try:
        check_readable(path)
    except InputError as error:  # not remembered: this may be mended while the file stays as it is
        return Findings(problem=str(error).removeprefix(f"{path} "))
    return book.find(path)


def usable_frames(findings: Findings) -> int:
    """Frames that both picture and sound cover."""
    return min(findings.frames, int((findings.seconds or 0.0) * VIDEO_FPS + 1e-3))


def _judge(findings: Findings, min_frames: int) -> _Rejection | None:
    """Why a clip cannot be used, if it cannot."""
    if findings.problem:
        return _Rejection("unreadable", findings.problem)
    if findings.seconds is None:
        return _Rejection("without sound", "has no sound")
    if abs(findings.fps - VIDEO_FPS) > FPS_TOLERANCE:
        return _Rejection(f"not at {VIDEO_FPS} frames a second", f"has {findings.fps:.2f} frames a second, not {VIDEO_FPS}")
    if findings.width != findings.height:
        return _Rejection("not square", f"shows {findings.width} x {findings.height} pixels: it is no aligned face")
    frames = usable_frames(findings)
    if frames < LEAST_COVER * findings.frames:
        return _Rejection(
            "with too little sound", f"has {findings.seconds:.2f} s of sound beside {findings.frames / VIDEO_FPS:.2f} s of picture"
        )
    if abs(findings.lag) > LARGEST_LAG:
        begins = f"begins {abs(findings.lag):.2f} s {'after' if findings.lag > 0 else 'before'} its picture"
        return _Rejection("with sound out of step", f"has sound that {begins}")
    if frames < min_frames:
        return _Rejection(f"shorter than {min_frames} frames", f"is {frames} frames long, not {min_frames} or more")
    return None


def _chunks(paths: Iterable[Path], length: int) -> Iterator[list[Path]]:
    iterator = iter(paths)
    while some := list(islice(iterator, length)):
        yield some
