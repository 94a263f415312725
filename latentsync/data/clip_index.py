"""The index of training clips: which can be used, which cannot and why, counterfactual pairs, mouth channels."""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from latentsync.constants import VIDEO_FPS
from latentsync.data.cache import open_video, stamp
from latentsync.errors import InputError, OutputError
from latentsync.media.files import check_readable, read_paths, read_record, walk_media
from latentsync.media.probe import PROBE_SECONDS, probe

logger = logging.getLogger(__name__)

FPS_TOLERANCE = 0.01
LEAST_COVER = 0.8  # share of the picture that its sound has to reach
LARGEST_LAG = 0.75 / VIDEO_FPS  # seconds between the beginnings of picture and sound
PAIR_SUFFIX = "_other"  # what the name of one clip of a counterfactual pair has more than the other's
_FILE = "clips-1.jsonl"
_AT_ONCE = 512  # clips that are opened before their properties are kept
_LOGGED = 20  # rejected clips that are named in the log
_ADVICE = (
    f"clips are square videos of one aligned face at {VIDEO_FPS} frames a second with sound, as the data processing pipeline writes them"
)


@dataclass(frozen=True)
class ClipInfo:
    """One clip that can be trained on."""

    path: Path  # absolute
    frames: int  # that both picture and sound cover
    seconds: float  # of sound
    mouth: bool = False  # whether the .json beside it holds the mouth's channels
    side: int = 0  # of its square picture, pixels


@dataclass(frozen=True)
class Catalog:
    """All clips of a training, in an order that does not change."""

    clips: tuple[ClipInfo, ...]
    rejected: dict[Path, str] = field(default_factory=dict)  # why: what many clips may share, and behind a colon the details

    def __len__(self) -> int:
        return len(self.clips)


def open_catalog(folder: Path | None, fileslist: Path | None, *, min_frames: int, cache_dir: Path, show_progress: bool = False) -> Catalog:
    """Usable clips below a folder and in a list (see `read_paths`); `cache_dir` keeps what was found. Raises InputError, OutputError."""
    if folder is None and fileslist is None:
        raise InputError(
            "there is nothing to train on: give data.train_data_dir, a folder of clips, or data.train_fileslist, a list of them"
        )
    rejected: dict[Path, str] = {}
    found = dict.fromkeys(map(_absolute, walk_media(folder)) if folder is not None else ())  # each once
    for number, written in read_paths(fileslist) if fileslist is not None else ():
        path = _absolute(written)
        if path.is_file():
            found[path] = None
        else:
            rejected.setdefault(path, f"named in the list but missing: line {number} of {fileslist}")
    with _one_at_a_time(Path(cache_dir)):
        clips = _usable_clips(list(found), ClipRecords(cache_dir), min_frames, rejected, show_progress)
    where = " and ".join(str(place) for place in (folder, fileslist) if place is not None)
    counts = Counter(reason.partition(":")[0] for reason in rejected.values())
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(5))
    if not clips:
        raise InputError(f"{where} {'holds no clip' if not summary else f'holds no clip that can be used ({summary})'}: {_ADVICE}")
    if rejected:
        logger.warning("%s: %d of %d clips are left out: %s", where, len(rejected), len(clips) + len(rejected), summary)
        for path, reason in islice(rejected.items(), _LOGGED):
            logger.info("%s is left out: %s", path, reason)
    return Catalog(tuple(clips), rejected)


def _absolute(path: Path) -> Path:
    """Without `..` and as written otherwise: a link stays a link."""
    return Path(os.path.abspath(path))  # noqa: PTH100


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one of the processes that share `folder` into the block at a time; on a disk without locks all of them do the work."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((folder / f".{_FILE}.lock").open("ab")), fcntl.LOCK_EX)
        yield


def _usable_clips(
    paths: list[Path], records: "ClipRecords", min_frames: int, rejected: dict[Path, str], show_progress: bool
) -> list[ClipInfo]:
    """The clips among `paths` that can be used; the others go to `rejected`."""
    clips: list[ClipInfo] = []
    threads = min(16, 2 * (os.cpu_count() or 1))  # each waits for the disk and for ffprobe most of the time
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="clips") as pool,
        tqdm(total=len(paths), unit="clip", desc="Opening clips", disable=not show_progress) as bar,
    ):
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            known = dict(zip(some, pool.map(records.find, some), strict=True))
            unknown = [path for path, properties in known.items() if properties is None]
            opened = dict(zip(unknown, pool.map(read_with_stamps, unknown), strict=True))
            records.add(opened)
            for path, recorded in known.items():
                properties = recorded or opened[path][1]
                if reason := _rejection(properties, min_frames):
                    rejected[path] = reason
                else:
                    frames, seconds = properties.usable_frames(), properties.seconds or 0.0
                    clips.append(ClipInfo(path, frames, seconds, properties.has_mouth, properties.width))
            bar.update(len(some))
    return clips


@dataclass(frozen=True)
class ClipProperties:
    """One clip as it lies on the disk."""

    frames: int = 0
    fps: float = 0.0
    width: int = 0  # pixels
    height: int = 0
    seconds: float | None = None  # of sound; None: no sound
    lag: float = 0.0  # seconds that the sound begins after the picture
    has_mouth: bool = False  # whether the .json beside it holds the mouth's channels
    problem: str | None = None  # why it cannot be read

    def usable_frames(self) -> int:
        """Frames that both picture and sound cover."""
        return min(self.frames, int((self.seconds or 0.0) * VIDEO_FPS + 1e-3))


def _rejection(clip: ClipProperties, min_frames: int) -> str | None:
    """Why a clip cannot be used, if it cannot."""
    frames, begins = clip.usable_frames(), "after" if clip.lag > 0 else "before"
    if clip.problem:
        return f"unreadable: {clip.problem}"
    if clip.seconds is None:
        return "without sound"
    if abs(clip.fps - VIDEO_FPS) > FPS_TOLERANCE:
        return f"not at {VIDEO_FPS} frames a second: at {clip.fps:.2f}"
    if clip.width != clip.height:
        return f"not square: {clip.width} x {clip.height} pixels are no aligned face"
    if frames < LEAST_COVER * clip.frames:
        return f"with too little sound: {clip.seconds:.2f} s beside {clip.frames / VIDEO_FPS:.2f} s of picture"
    if abs(clip.lag) > LARGEST_LAG:
        return f"with sound out of step: it begins {abs(clip.lag):.2f} s {begins} its picture"
    return f"shorter than {min_frames} frames: {frames}" if frames < min_frames else None


class ClipRecords:
    """Properties of clips in a text file of one line each, found by path, size and time; several processes may write it at once."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; lines that are torn or of another version are passed over, as is a file that cannot be read."""
        self.path = Path(folder) / _FILE
        self._known: dict[str, tuple[str, ClipProperties]] = {}
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    entry: dict[str, Any] = json.loads(line)
                    path, stamps = entry.pop("path"), entry.pop("stamps")
                    self._known[path] = (stamps, ClipProperties(**entry))

    def find(self, path: Path) -> ClipProperties | None:
        """What is known of a clip as it is now, without opening it; None where it was not opened or has changed. Raises InputError."""
        try:
            check_readable(path)
        except InputError as error:  # not recorded: this may be mended while the file stays as it is
            return ClipProperties(problem=str(error).removeprefix(f"{path} "))
        known = self._known.get(str(path))
        return known[1] if known and known[0] == _stamps(path) else None

    def add(self, found: dict[Path, tuple[str, ClipProperties]]) -> None:
        """Record more, in one write. Raises OutputError."""
        if not found:
            return
        lines = [json.dumps({"path": str(path), "stamps": stamps} | asdict(properties)) for path, (stamps, properties) in found.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:  # a newline first: what another process left half-written ends there
                file.write(("\n" + "\n".join(lines) + "\n").encode())
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise OutputError(f"cannot write {self.path} ({why}): free some space, or give data.cache_dir another disk") from None


def read_with_stamps(path: Path) -> tuple[str, ClipProperties]:
    """A clip's properties and the stamps they hold for, none where the disk stalled. Raises InputError where it is gone."""
    stamps, begin = _stamps(path), time.monotonic()
    properties = read_properties(path)
    stalled = properties.problem is not None and time.monotonic() - begin >= PROBE_SECONDS
    return "" if stalled else stamps, properties


def _stamps(path: Path) -> str:
    beside = sidecar(path)
    return f"{stamp(path)} {stamp(beside) if beside.is_file() else '-'}"


def read_properties(path: Path) -> ClipProperties:
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
    mouth = read_record(sidecar(path)).get("mouth")
    has_mouth = isinstance(mouth, dict) and bool(mouth.get("values"))
    return ClipProperties(frames, fps, video.width, video.height, seconds, lag, has_mouth)


def sidecar(path: Path) -> Path:
    """Where the known facts about a rendered clip lie."""
    return path.with_suffix(".json")


def read_mouth(clip: Path) -> np.ndarray:
    """Mouth channels of all frames of a rendered clip: float32 n k. Raises InputError where it comes without."""
    path = sidecar(clip)
    try:
        values = np.asarray(json.loads(path.read_bytes())["mouth"]["values"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no mouth channels ({type(error).__name__}): render this clip again") from None
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(f"{path} holds mouth channels that are no table of numbers: render this clip again")
    return values


def counterpart_path(path: Path) -> Path:
    """Path of the other clip of a counterfactual pair, whichever of the two this is."""
    stem = path.stem.removesuffix(PAIR_SUFFIX) if path.stem.endswith(PAIR_SUFFIX) else path.stem + PAIR_SUFFIX
    return path.with_name(stem + path.suffix)
