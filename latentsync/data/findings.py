"""What is known of a clip before training: looked at once, remembered for the next start."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from latentsync.data.cache import stamp
from latentsync.data.frames import open_video
from latentsync.errors import InputError, OutputError
from latentsync.media.ffmpeg import PROBE_SECONDS, probe

logger = logging.getLogger(__name__)

_FILE = "clips-1.jsonl"


@dataclass(frozen=True)
class Findings:
    """One clip as it lies on the disk."""

    frames: int = 0
    fps: float = 0.0
    width: int = 0  # pixels
    height: int = 0
    seconds: float | None = None  # of sound; None: no sound
    lag: float = 0.0  # seconds that the sound begins after the picture
    has_mouth: bool = False  # whether the .json beside it tells the mouth's channels
    problem: str | None = None  # why it cannot be read


def look(path: Path) -> Findings:
    """Open a clip, once with ffprobe and once for decoding."""
    try:
        info = probe(path)
        video, audio = info.require_video(), info.audio
        with open_video(path) as reader:
            frames, fps = len(reader), float(reader.get_avg_fps())
    except InputError as error:
        return Findings(problem=str(error).removeprefix(f"{path} "))
    seconds = None if audio is None else audio.duration or info.duration or 0.0
    lag = 0.0 if audio is None else (audio.start_time or 0.0) - (video.start_time or 0.0)
    return Findings(frames, fps, video.width, video.height, seconds, lag, _has_mouth(sidecar(path)))


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


class Notebook:
    """Findings of clips in a text file of one line each, found by path, size and time; several processes may write it at once."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; lines that are torn or of another version are passed over, as is a file that cannot be read."""
        self.path = Path(folder) / _FILE
        self._known: dict[str, tuple[str, Findings]] = {}
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            for line in file:
                self._take(line)

    def find(self, path: Path) -> Findings | None:
        """What is known of a clip as it is now; None where it has not been looked at, or has changed since. InputError where it is gone."""
        known = self._known.get(str(path))
        return known[1] if known and known[0] == _stamps(path) else None

    def add(self, found: dict[Path, tuple[str, Findings]]) -> None:
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
            self._known[path] = (stamps, Findings(**entry))


def look_and_stamp(path: Path) -> tuple[str, Findings]:
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
