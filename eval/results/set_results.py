"""Results of a distance between two sets of videos: JSON, a table, and a picture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eval.measures.estimates import Estimate
from eval.measures.measure import SetMeasure
from latentsync.media.files import staged, write_text


@dataclass
class Seen:
    """One folder of videos, looked at."""

    features: list[np.ndarray] = field(default_factory=list)  # n d of each video
    failed: dict[str, str] = field(default_factory=dict)  # video -> why it could not be measured

    @property
    def videos(self) -> int:
        """Videos that gave features."""
        return sum(len(features) > 0 for features in self.features)

    @property
    def count(self) -> int:
        """Features of all of them."""
        return sum(len(features) for features in self.features)


class SetResults:
    """What was found.

    Args:
        measure: what was measured.
        distance: of both sets.
        halves: distance of two halves of the real one; None where it is too small.
        seen: "real" and "made".
        weights: file -> SHA-256.
        settings: what else decided the numbers.
    """

    def __init__(
        self,
        measure: SetMeasure,
        distance: Estimate,
        halves: float | None,
        seen: Mapping[str, Seen],
        weights: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.measure, self.distance, self.halves, self.seen = measure, distance, halves, seen
        self.weights, self.settings = weights, settings

    def write(self, folder: Path) -> str:
        """Write all three files; the table. Raises OutputError."""
        table, name = self.table(), self.measure.name
        write_text(folder / f"{name}.json", json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n")
        write_text(folder / f"{name}.md", table)
        with staged(folder / f"{name}.png") as temporary:
            self.draw(temporary)
        return table

    def content(self) -> dict[str, object]:
        """What goes into the JSON."""
        return {
            "measure": self.measure.name,
            "value": self.distance.value,
            "interval": [self.distance.low, self.distance.high],
            "real_halves": self.halves,
            "sets": {side: {"videos": part.videos, "features": part.count, "failed": part.failed} for side, part in self.seen.items()},
            "features_width": self.width,
            "full_rank": self.full_rank,
            "protocol": self.measure.protocol,
            "weights": dict(self.weights),
            "settings": dict(self.settings),
        }

    @property
    def width(self) -> int:
        """Numbers of one feature."""
        return self.seen["real"].features[0].shape[1]

    @property
    def full_rank(self) -> bool:
        """Whether both sets have enough features for a covariance that can be inverted."""
        return min(part.count for part in self.seen.values()) > self.width

    def table(self) -> str:
        """Markdown."""
        name, digits, (real, made) = self.measure.name, self.measure.column.digits, (self.seen["real"], self.seen["made"])
        value, low, high, _ = self.distance
        interval = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
        halves = "too few videos" if self.halves is None else f"{self.halves:.{digits}f}"
        lines = [
            f"| {name} (lower is better) | value [95 % interval] | videos | features |",
            "|---|---|---|---|",
            f"| made against real | {value:.{digits}f}{interval} | {made.videos}, {real.videos} | {made.count}, {real.count} |",
            f"| ground truth: real against real, by halves | {halves} | {real.videos} | {real.count} |",
            *("", self.measure.protocol),
        ]
        if not self.full_rank:
            lines += ["", f"**Fewer features than the {self.width} numbers of each: compare with sets of the same size alone.**"]
        failed = [f"- {path}: {why}" for part in (made, real) for path, why in part.failed.items()]
        return "\n".join([*lines, *(["", f"Left out ({len(failed)}):", "", *failed] if failed else [])]) + "\n"

    def draw(self, path: Path) -> None:
        """Both rows as points, with the interval."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        value, low, high, _ = self.distance
        reach = None if low is None or high is None else [[value - low], [high - value]]
        axes.errorbar([value], [1], xerr=reach, fmt="o", capsize=4)
        if self.halves is not None:
            axes.plot([self.halves], [0], "s", color="grey")
        axes.set_yticks([0, 1], ["real against real", "made against real"])
        axes.set_ylim(-0.5, 1.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(self.measure.name)
        figure.savefig(path, dpi=120)
