"""Training history as JSON lines and TensorBoard, and the chart of the losses."""

import json
import logging
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d
from torch.utils.tensorboard import SummaryWriter

from latentsync.errors import OutputError
from latentsync.media.files import staged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

TRAINING, VALIDATION = "training", "validation"
_FILE = "history.jsonl"


class HistoryPoint(NamedTuple):
    """Values measured at one step."""

    step: int
    kind: str  # TRAINING or VALIDATION
    values: dict[str, float]


class History:
    """The points of one output folder."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        """Open, without what was measured after `step`: a training that goes on from there measures it again. Raises OutputError."""
        self.path = folder / _FILE
        try:
            with staged(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:  # a last line that is cut short goes, too
                file.writelines(json.dumps(point._asdict()) + "\n" for point in self.points() if point.step <= step)
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            raise self._unwritable(error) from None

    def points(self) -> Iterator[HistoryPoint]:
        """All points in the order they were written; a line cut short by a crash is passed over."""
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield HistoryPoint(**json.loads(line))
                except (ValueError, TypeError):
                    continue

    def add(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Write a point. Raises OutputError."""
        line = json.dumps(HistoryPoint(step, kind, {name: float(value) for name, value in values.items()})._asdict())
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise self._unwritable(error) from None

    def was_validated(self, step: int) -> bool:
        return any(point.step == step and point.kind == VALIDATION for point in self.points())

    def close(self) -> None:
        """Write what waits, as far as that goes: the end of a training has more to say than a full disk."""
        try:
            self._writer.close()
        except OSError as error:
            logger.warning("The last points are missing in TensorBoard: %s", error.strerror)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path} cannot be written ({error.strerror}): free some space and run the same command again")


SMOOTHING = 0.05  # share of a curve that its running mean covers
CHANCE = {"sync": (np.log(2), "chance"), "accuracy": (0.5, "chance")}  # where a network that knows nothing stands
PANEL = (5.0, 3.2)  # inches
NOT_DRAWN = {"lr", "seconds", "waiting"}  # TensorBoard has them


def draw_chart(points: Iterable[HistoryPoint], path: Path) -> None:
    """Write the chart (PNG), whole or not at all; nothing is written while nothing was measured. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
    from matplotlib.figure import Figure

    curves: dict[str, dict[str, array]] = {}  # panel -> curve -> step, value, step, value, ...
    for point in points:
        for name, value in point.values.items():
            panel, _, bound = name.partition(":")  # "accuracy:low" and "accuracy:high" belong into the panel of "accuracy"
            if panel not in NOT_DRAWN and np.isfinite(value):
                curve = f"{point.kind}:{bound}" if bound else point.kind
                curves.setdefault(panel, {}).setdefault(curve, array("d")).extend((point.step, value))
    if not curves:
        return
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for place, (name, panel) in enumerate(sorted(curves.items(), key=lambda item: (TRAINING not in item[1], item[0])), start=1):
        lines = {curve: np.array(values).reshape(-1, 2).T for curve, values in panel.items()}
        _draw_panel(figure.add_subplot(rows, columns, place), name, lines)
    with staged(path) as temporary:
        canvas.print_figure(temporary, dpi=110, format="png")


def _draw_panel(axes: "Axes", name: str, lines: Mapping[str, np.ndarray]) -> None:
    """The curves of one value, each 2 n: steps, values."""
    if TRAINING in lines:
        steps, values = lines[TRAINING]
        axes.plot(steps, values, color="#9dbfe0", linewidth=0.8)
        smooth = uniform_filter1d(values, 2 * int(len(values) * SMOOTHING / 2) + 1, mode="nearest")
        axes.plot(steps, smooth, color="#1f5fa8", linewidth=1.6, label="training")
    if VALIDATION in lines:
        axes.plot(*lines[VALIDATION], color="#c8501e", linewidth=1.6, marker="o", markersize=3, label="validation")
        low, high = (lines.get(f"{VALIDATION}:{bound}") for bound in ("low", "high"))
        if low is not None and high is not None and low.shape == high.shape:
            axes.fill_between(low[0], low[1], high[1], color="#c8501e", alpha=0.15, linewidth=0)
    if name in CHANCE:
        level, label = CHANCE[name]
        axes.axhline(level, color="#888888", linewidth=0.8, linestyle="--", label=label)
    axes.set_title(name)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
