"""What a training has measured: one line of JSON a point on disk, the same in TensorBoard; nothing of it is held in memory."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

from latentsync.errors import OutputError
from latentsync.media.files import staged

logger = logging.getLogger(__name__)

TRAINING, VALIDATION = "training", "validation"
_FILE = "history.jsonl"


class Point(NamedTuple):
    """Values measured at one step."""

    step: int
    kind: str  # TRAINING or VALIDATION
    values: dict[str, float]


class History:
    """The points of one output folder."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        """Open, forgetting what was measured after `step`: a training that goes on from there will measure it again.

        Raises OutputError where the folder cannot be written.
        """
        self.path = folder / _FILE
        try:
            self._forget_after(step)
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise self._unwritable(error) from None

    def points(self) -> Iterator[Point]:
        """All points in the order they were written; a line cut short by a crash is passed over."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield Point(**json.loads(line))
                except (ValueError, TypeError):
                    continue

    def add(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Write a point. Raises OutputError."""
        line = json.dumps(Point(step, kind, {name: float(value) for name, value in values.items()})._asdict())
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise self._unwritable(error) from None

    def was_validated(self, step: int) -> bool:
        """Whether there is a validation of this step."""
        return any(point.step == step and point.kind == VALIDATION for point in self.points())

    def close(self) -> None:
        """Write what waits, as far as that goes: the end of a training has more to say than a full disk."""
        try:
            self._writer.close()
        except OSError as error:
            logger.warning("The last points are missing in TensorBoard: %s", error.strerror)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} cannot be written ({error.strerror}): free some space and run the same command again")

    def _forget_after(self, step: int) -> None:
        if self._is_cut() or any(point.step > step for point in self.points()):
            with staged(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(point._asdict()) + "\n" for point in self.points() if point.step <= step)

    def _is_cut(self) -> bool:
        """Whether a crash left a last line without an end, which the next point would run into."""
        if not self.path.is_file() or not self.path.stat().st_size:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


class RunningMeans:
    """Means of values over the steps since they were last taken; true when there are any."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, values: Mapping[str, float]) -> None:
        """The values of one step."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means; begins anew."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
