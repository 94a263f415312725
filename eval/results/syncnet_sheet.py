"""The accuracy of a SyncNet as numbers, as a table, and as a picture."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eval.measures.estimates import Estimate, share
from eval.measures.sync_offset import MAX_SHIFT, SyncReading
from eval.measures.syncnet_pairs import THRESHOLDS, Pairs
from latentsync.losses.sync import IN_SYNC
from latentsync.media.files import staged

NONE = "-"
_BLUE, _RED, _GREY = "#1f5fa8", "#c8501e", "#888888"


@dataclass(frozen=True)
class AccuracyResults:
    """Everything that was measured of one SyncNet on one data set.

    Attributes:
        settings: configuration, weights, clips, and how they were looked at.
        clips: clips that can be used.
        rejected: those that cannot, and why.
        offsets: readings of whole clips by name.
        failed: clips whose offset could not be read, and why.
        remarks: what a reader should know.
    """

    settings: Mapping[str, Any]
    clips: int
    rejected: Mapping[str, str]
    pairs: Pairs
    offsets: Mapping[str, SyncReading]
    failed: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> dict[str, Estimate | None]:
        """Value and interval of each number of the table."""
        offsets = [reading.offset for reading in self.offsets.values()]
        return {
            "accuracy": self.pairs.accuracy(),
            "accuracy_over_clips": self.pairs.accuracy_over_clips(),
            "accuracy_shuffled_labels": self.pairs.shuffled(),
            "roc_area": self.pairs.area(),
            "offset_0": share([offset == 0 for offset in offsets]),
            "offset_1_at_most": share([abs(offset) <= 1 for offset in offsets]),
        }


_NAMES = {
    "accuracy": f"accuracy at cosine > {IN_SYNC:g} (interval: Wilson, over pairs)",
    "accuracy_over_clips": "... with the interval over clips (bootstrap)",
    "accuracy_shuffled_labels": "control: the same with shuffled labels (50 % is chance)",
    "roc_area": "area below the ROC curve (50 % is chance; bootstrap over pairs)",
    "offset_0": "clips whose offset is 0 (Wilson)",
    "offset_1_at_most": "clips whose offset is one frame at most (Wilson)",
}


def to_json(results: AccuracyResults) -> dict[str, Any]:
    """Everything, for other programs."""
    curve = results.pairs.curve()
    values = {name: None if row is None else row._asdict() for name, row in results.rows.items()}
    counts = Counter(reading.offset for reading in results.offsets.values())
    return {
        "settings": dict(results.settings),
        "pairs": len(results.pairs.labels),
        "pairs_in_sync": int(results.pairs.labels.sum()),
        "clips": results.clips,
        "rejected_clips": dict(results.rejected),
        "problems": list(results.pairs.problems),
        **values,
        "loss": results.pairs.loss,
        "thresholds": THRESHOLDS.round(2).tolist(),
        "accuracy_at_thresholds": curve.tolist(),
        "best_threshold": float(THRESHOLDS[curve.argmax()].round(2)),
        "offsets": {str(offset): counts[offset] for offset in sorted(counts)},
        "offset_of_clips": {name: {"offset": r.offset, "confidence": r.confidence} for name, r in results.offsets.items()},
        "offset_failed": dict(results.failed),
        "remarks": list(results.remarks),
    }


def to_markdown(results: AccuracyResults) -> str:
    """The table and what is to be known about it."""
    pairs, curve = results.pairs, results.pairs.curve()
    lines = ["# Accuracy of a SyncNet", "", "| measure | value | 95 % interval | of |", "|---|---|---|---|"]
    for name, row in results.rows.items():
        if row is None:
            lines.append(f"| {_NAMES[name]} | {NONE} | {NONE} | 0 |")
            continue
        interval = NONE if row.low is None or row.high is None else f"{_percent(row.low)} to {_percent(row.high)}"
        lines.append(f"| {_NAMES[name]} | {_percent(row.value)} | {interval} | {row.count} |")
    best = int(curve.argmax())
    count = len(pairs.labels)
    lines += [
        f"| best accuracy, at cosine > {THRESHOLDS[best]:.2f} (chosen on these very pairs) | {_percent(curve[best])} | {NONE} | {count} |",
        f"| loss (0.693 is chance) | {pairs.loss:.4f} | {NONE} | {count} |",
        "",
    ]
    used = len(np.unique(pairs.clips))
    lines.append(f"{count} pairs ({int(pairs.labels.sum())} of them in sync) from {used} of {results.clips} clips.")
    if results.rejected:
        lines.append(f"{len(results.rejected)} clips cannot be used; the reasons stand in syncnet_acc.json.")
    if results.failed:
        lines.append(f"{len(results.failed)} clips have no offset, such as: {next(iter(results.failed.values()))}")
    settings = ", ".join(f"{name} {value}" for name, value in results.settings.items())
    return "\n".join([*lines, *pairs.problems, *results.remarks, "", f"Settings: {settings}"]) + "\n"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def draw(results: AccuracyResults, path: Path) -> None:
    """Write a picture (PNG): cosines, accuracy over thresholds, ROC curve, offsets of clips. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
    from matplotlib.figure import Figure

    pairs, figure = results.pairs, Figure(figsize=(11, 7.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    (cosines, thresholds), (roc, offsets) = figure.subplots(2, 2)
    for label, colour, name in ((True, _BLUE, "same moment"), (False, _RED, "another moment")):
        cosines.hist(pairs.cosines[pairs.labels == label], bins=np.linspace(0, 1, 41), color=colour, alpha=0.6, label=name)
    cosines.set(xlabel="cosine", ylabel="pairs")
    thresholds.plot(THRESHOLDS, pairs.curve(), color=_BLUE)
    thresholds.axhline(0.5, color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    thresholds.axvline(IN_SYNC, color=_RED, linewidth=0.8, linestyle="--", label=f"{IN_SYNC:g}")
    thresholds.set(xlabel="cosine above which a pair counts as in sync", ylabel="accuracy", ylim=(0, 1.02))
    area = results.rows["roc_area"]
    roc.plot(*pairs.roc(), color=_BLUE, label=NONE if area is None else f"area {area.value:.3f}")
    roc.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--", label="chance")
    roc.set(xlabel="wrong pairs accepted", ylabel="right pairs accepted")
    counts = Counter(reading.offset for reading in results.offsets.values())
    offsets.bar(list(counts), list(counts.values()), color=_BLUE, label=f"{len(results.offsets)} clips")
    offsets.set(xlabel="offset in frames: +, the sound comes too early", ylabel="clips", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (cosines, offsets):
        axes.yaxis.get_major_locator().set_params(integer=True)
    for axes in (cosines, thresholds, roc, offsets):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    with staged(path) as temporary:
        canvas.print_figure(temporary, dpi=110, format="png")
