"""A long video as whole segments in a work folder beside it, joined without a second encode: a killed job goes on from the last one."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from latentsync.errors import OutputError
from latentsync.media.files import folder_lock, read_record, staged, write_json
from latentsync.media.probe import QUIET, Child, require_program
from latentsync.media.video_writer import VideoWriter

logger = logging.getLogger(__name__)

LOCK_SECONDS = 60.0  # that a part waits for the folder
State = Mapping[str, np.ndarray]  # what the frames after a segment depend on


def work_folder(path: Path) -> Path:
    """Where the segments of a result are kept while it is made."""
    return path.parent / f".{path.name}.work"


class SegmentedWriter:
    """Encodes frames into `path` like a `VideoWriter`, by segments that `checkpoint` ends; a context manager.

    Where an earlier run with the same `key` was killed, `frames_written` and `state` are those of its last whole segment on entry. An
    error or Ctrl-C removes the work folder, unless `keep` is true; a folder with another key is emptied.
    """

    def __init__(self, path: Path, key: str, open_segment: Callable[[Path], VideoWriter], joined: VideoWriter, *, keep: bool) -> None:
        """`joined`: how the whole result is written, with its sound."""
        self.path, self.folder, self.frames_written, self.state = path, work_folder(path), 0, {}
        self._key, self._open_segment, self._joined, self._keep = key, open_segment, joined, keep
        self._ends: list[int] = []  # frames up to the end of each whole segment
        self._writer: VideoWriter | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "SegmentedWriter":
        """Raises InputError where another process works in the folder, OutputError where it cannot be written."""
        self._stack.enter_context(self._locked())
        count = 0
        while self._is_whole(count):
            count += 1
        if count:
            with np.load(self._state(count - 1)) as arrays:
                self.state = dict(arrays)
            self._ends = self.state.pop("ends").tolist()
            self.frames_written = self._ends[-1]
            seconds = float(self.frames_written / self._joined.fps)
            logger.info("%s: going on at %.1f s, from the segments of a run that was interrupted.", self.path, seconds)
        return self

    @contextlib.contextmanager
    def _locked(self, seconds: float = 0.0) -> Iterator[None]:
        """The work folder of this very result, for this process alone."""
        with folder_lock(self.folder, "lock", "is in use: the same result is being made by another process.", seconds):
            if read_record(self.folder / "key.json") != {"key": self._key}:
                for entry in self.folder.iterdir():
                    if entry.name != "lock":
                        entry.unlink()
                write_json(self.folder / "key.json", {"key": self._key})
            yield

    def write(self, frame: np.ndarray) -> None:
        """Queue one frame (uint8 h w 3), which must not be changed afterwards. Raises OutputError."""
        if self._writer is None:
            self._writer = self._open_segment(self._segment(len(self._ends)))
            self._writer.__enter__()
        self._writer.write(frame)
        self.frames_written += 1

    def checkpoint(self, state: State) -> None:
        """End a segment; `state` comes back in a run that goes on from here."""
        writer, self._writer = self._writer, None
        writer.__exit__(None, None, None)
        self._ends.append(self.frames_written)
        with staged(self._state(len(self._ends) - 1)) as temporary, temporary.open("wb") as file:
            np.savez(file, ends=self._ends, **state)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Join the segments, or leave nothing. Raises OutputError."""
        is_done = False
        try:
            if self._writer is not None:
                self._writer.__exit__(kind, error, trace)  # which raises an error again
            if error is None:
                self._join()
                is_done = True
        finally:
            if is_done or not self._keep:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._stack.close()

    def part(self, stops: Sequence[int], numbers: range) -> "PartWriter":
        """What makes some of the segments, which end at `stops` (all of the result), while other processes make others."""
        return PartWriter(self.path, self._key, self._open_segment, self._joined, stops, numbers)

    def _join(self) -> None:
        """Packets of all segments, and the sound, into the result."""
        require_program("ffmpeg")
        times = [round(1_000_000 * frames / self._joined.fps) for frames in (0, *self._ends, self.frames_written)]  # microseconds
        lengths = [after - before for before, after in pairwise(times)]
        entries = (f"file '{self._segment(number).name}'\nduration {length}us\n" for number, length in enumerate(lengths))
        (self.folder / "list.txt").write_text("".join(entries), encoding="utf-8")
        with staged(self.path) as temporary:
            child = Child(["ffmpeg", *QUIET, "-nostdin", *self._joined.joining(self.folder / "list.txt", temporary)])
            if child.finish():
                raise OutputError(f"{self.path} was not written: ffmpeg stopped with: {child.reason()}")

    def _is_whole(self, number: int) -> bool:
        return self._segment(number).is_file() and self._state(number).is_file()

    def _segment(self, number: int) -> Path:
        deep, suffix = self._joined.encoding.deep, self.path.suffix
        keeps_more = suffix.lower() == ".mov" or (deep is not None and deep.has_alpha)  # than .mp4, which counts time most exactly
        return self.folder / f"{number:05d}{suffix if keeps_more else '.mp4'}"

    def _state(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"


class PartWriter(SegmentedWriter):
    """Encodes some of the segments of a result; a `SegmentedWriter` of the same key takes them over. A context manager.

    On entry `frames_written` is where the first of them begins that is not whole, and `state` that of the segment before it, if that is
    there.
    """

    def __init__(
        self, path: Path, key: str, open_segment: Callable[[Path], VideoWriter], joined: VideoWriter, stops: Sequence[int], numbers: range
    ) -> None:
        super().__init__(path, key, open_segment, joined, keep=True)
        self._stops, self._numbers = list(stops), numbers

    def __enter__(self) -> "PartWriter":
        with self._locked(LOCK_SECONDS):  # who makes another part holds it for a moment, too
            pass
        first = next((number for number in self._numbers if not self._is_whole(number)), self._numbers.stop)
        self._ends = self._stops[:first]
        self.frames_written = self._ends[-1] if first else 0
        if first and self._is_whole(first - 1):
            with np.load(self._state(first - 1)) as arrays:
                self.state = {name: array for name, array in arrays.items() if name != "ends"}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Segments that are whole stay, also after an error."""
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)
