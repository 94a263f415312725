"""The loss curves of a training as a picture: training and validation, one panel for each loss."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentsync.media.files import staged
from latentsync.training.history import TRAINING, VALIDATION, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 2000  # in one curve: more are averaged in neighbouring pairs, so that a long training needs no more memory
SMOOTHING = 0.05  # share of a curve that its running mean looks at
CHANCE = {"sync": (np.log(2), "chance"), "accuracy": (0.5, "chance")}  # where a network that knows nothing stands
PANEL = (5.0, 3.2)  # inches
NOT_DRAWN = {"lr", "seconds", "waiting"}  # TensorBoard has them


class Curve:
    """Points of one value, thinned as they come."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []  # step, value
        self._stride, self._waiting = 1, []

    def add(self, step: int, value: float) -> None:
        """One more point; values that are no number are left out."""
        if not np.isfinite(value):
            return
        self._waiting.append((step, value))
        if len(self._waiting) == self._stride:
            self.points.append(tuple(np.mean(self._waiting, axis=0)))
            self._waiting = []
        if len(self.points) > MOST_POINTS:
            self.points = [tuple(np.mean(pair, axis=0)) for pair in zip(self.points[::2], self.points[1::2], strict=False)]
            self._stride *= 2

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values."""
        steps, values = np.array(self.points).reshape(-1, 2).T
        return steps, values


def draw_chart(points: Iterable[Point], path: Path) -> None:
    """Write the chart (PNG), whole or not at all; nothing is written while nothing was measured. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
    from matplotlib.figure import Figure

    curves: dict[str, dict[str, Curve]] = {}
    for point in points:
        for name, value in point.values.items():
            panel, _, bound = name.partition(":")  # "accuracy:low" and "accuracy:high" belong into the panel of "accuracy"
            if panel in NOT_DRAWN:
                continue
            curves.setdefault(panel, {}).setdefault(f"{point.kind}:{bound}" if bound else point.kind, Curve()).add(point.step, value)
    curves = {name: panel for name, panel in curves.items() if any(curve.points for curve in panel.values())}
    if not curves:
        return
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for place, (name, panel) in enumerate(sorted(curves.items(), key=lambda item: (TRAINING not in item[1], item[0])), start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), name, panel)
    with staged(path) as temporary:
        canvas.print_figure(temporary, dpi=110, format="png")


def _draw_panel(axes: "Axes", name: str, panel: dict[str, Curve]) -> None:
    if TRAINING in panel:
        steps, values = panel[TRAINING].arrays()
        axes.plot(steps, values, color="#9dbfe0", linewidth=0.8)
        axes.plot(steps, running_mean(values), color="#1f5fa8", linewidth=1.6, label="training")
    if VALIDATION in panel:
        steps, values = panel[VALIDATION].arrays()
        axes.plot(steps, values, color="#c8501e", linewidth=1.6, marker="o", markersize=3, label="validation")
        bounds = [panel.get(f"{VALIDATION}:{bound}") for bound in ("low", "high")]
        if all(bounds):
            low, high = (bound.arrays()[1] for bound in bounds)
            if len(low) == len(high) == len(steps):
                axes.fill_between(steps, low, high, color="#c8501e", alpha=0.15, linewidth=0)
    if name in CHANCE:
        level, label = CHANCE[name]
        axes.axhline(level, color="#888888", linewidth=0.8, linestyle="--", label=label)
    axes.set_title(name)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of each value and its neighbours on both sides, fewer at the ends."""
    reach = int(len(values) * SMOOTHING / 2)
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)
