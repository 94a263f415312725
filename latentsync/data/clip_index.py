"""The index of training clips: what is usable, what is not and why, pairs, mouth channels."""

import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from latentsync.constants import VIDEO_FPS
from latentsync.data.cache import open_video, stamp
from latentsync.errors import InputError, OutputError
from latentsync.media.files import check_readable, read_paths, walk_media
from latentsync.media.probe import PROBE_SECONDS, probe

logger = logging.getLogger(__name__)

_FILE = "clips-1.jsonl"


@dataclass(frozen=True)
class ClipProperties:
    """One clip as it lies on the disk."""

    frames: int = 0
    fps: float = 0.0
    width: int = 0  # pixels
    height: int = 0
    seconds: float | None = None  # of sound; None: no sound
    lag: float = 0.0  # seconds that the sound begins after the picture
    has_mouth: bool = False  # whether the .json beside it tells the mouth's channels
    problem: str | None = None  # why it cannot be read


def look(path: Path) -> ClipProperties:
    """Open a clip, once with ffprobe and once for decoding."""
    try:
        info = probe(path)
        video, audio = info.require_video(), info.audio
        with open_video(path) as reader:
            frames, fps = len(reader), float(reader.get_avg_fps())
    except InputError as error:
        return ClipProperties(problem=str(error).removeprefix(f"{path} "))
    seconds = None if audio is None else audio.duration or info.duration or 0.0
    lag = 0.0 if audio is None else (audio.start_time or 0.0) - (video.start_time or 0.0)
    return ClipProperties(frames, fps, video.width, video.height, seconds, lag, _has_mouth(sidecar(path)))


def sidecar(path: Path) -> Path:
    """Where the truth about a rendered clip lies."""
    return path.with_suffix(".json")


def _has_mouth(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    mouth = content.get("mouth") if isinstance(content, dict) else None
    return isinstance(mouth, dict) and bool(mouth.get("values"))


class ClipRecords:
    """Findings of clips in a text file of one line each, found by path, size and time; several processes may write it at once."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; lines that are torn or of another version are passed over, as is a file that cannot be read."""
        self.path = Path(folder) / _FILE
        self._known: dict[str, tuple[str, ClipProperties]] = {}
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            for line in file:
                self._take(line)

    def find(self, path: Path) -> ClipProperties | None:
        """What is known of a clip as it is now; None where it has not been looked at, or has changed since. InputError where it is gone."""
        known = self._known.get(str(path))
        return known[1] if known and known[0] == _stamps(path) else None

    def add(self, found: dict[Path, tuple[str, ClipProperties]]) -> None:
        """Remember more, in one write. Raises OutputError."""
        lines = [json.dumps({"path": str(path), "stamps": stamps} | asdict(findings)) for path, (stamps, findings) in found.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:  # a newline first: what another process left half-written ends there
                file.write(("\n" + "\n".join(lines) + "\n").encode())
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise OutputError(f"cannot write {self.path} ({why}): free some space, or give data.cache_dir another disk") from None

    def _take(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            entry: dict[str, Any] = json.loads(line)
            path, stamps = entry.pop("path"), entry.pop("stamps")
            self._known[path] = (stamps, ClipProperties(**entry))


def look_and_stamp(path: Path) -> tuple[str, ClipProperties]:
    """A clip's findings with the stamps they hold for, taken before. Raises InputError where it is gone.

    What a stalled disk made unreadable holds for no stamp, so that the next start looks again.
    """
    stamps, begin = _stamps(path), time.monotonic()
    findings = look(path)
    stalled = findings.problem is not None and time.monotonic() - begin >= PROBE_SECONDS
    return "" if stalled else stamps, findings


def _stamps(path: Path) -> str:
    """Stamps of a clip and of what lies beside it."""
    beside = sidecar(path)
    return f"{stamp(path)} {stamp(beside) if beside.is_file() else '-'}"


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let only one of the processes that share `folder` into the block, so that the others find its work done.

    Where the system or the disk has no locks they do the same work side by side.
    """
    try:
        import fcntl  # not on every system
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            file: IO[bytes] = stack.enter_context((folder / f".{_FILE}.lock").open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scan_threads() -> int:
    """Clips to look at side by side: each waits for the disk and for ffprobe most of the time."""
    return min(16, 2 * (os.cpu_count() or 1))


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
        clips = _look_at_all(paths, ClipRecords(cache_dir), min_frames, rejected, show_progress)
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
    paths: list[Path], book: ClipRecords, min_frames: int, rejected: dict[Path, _Rejection], show_progress: bool
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


def _recall(path: Path, book: ClipRecords) -> ClipProperties | None:
    """What is known of a clip without opening it; None: nothing yet."""
    try:
        check_readable(path)
    except InputError as error:  # not remembered: this may be mended while the file stays as it is
        return ClipProperties(problem=str(error).removeprefix(f"{path} "))
    return book.find(path)


def usable_frames(findings: ClipProperties) -> int:
    """Frames that both picture and sound cover."""
    return min(findings.frames, int((findings.seconds or 0.0) * VIDEO_FPS + 1e-3))


def _judge(findings: ClipProperties, min_frames: int) -> _Rejection | None:
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


TWIN = "_other"  # what a twin's name has more than its clip's


def twin_path(path: Path) -> Path:
    """Where the twin of a clip lies, whichever of the two it is."""
    stem = path.stem.removesuffix(TWIN) if path.stem.endswith(TWIN) else path.stem + TWIN
    return path.with_name(stem + path.suffix)


def find_twins(clips: Iterable[ClipInfo]) -> dict[Path, ClipInfo]:
    """Clip -> its twin, for those that have one among the clips."""
    by_path = {clip.path: clip for clip in clips}
    return {path: by_path[twin_path(path)] for path in by_path if twin_path(path) in by_path}


def read_mouth(clip: Path) -> np.ndarray:
    """Mouth channels of all frames of a rendered clip: float32 n k. Raises InputError where it comes without."""
    path = sidecar(clip)
    try:
        values = np.asarray(json.loads(path.read_bytes())["mouth"]["values"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} tells no mouth channels ({type(error).__name__}): render this clip again") from None
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(f"{path} tells mouth channels that are no table of numbers: render this clip again")
    return values
