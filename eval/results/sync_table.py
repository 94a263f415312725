"""Sync of many videos as a table, as numbers for other programs, and as a picture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from eval.measures.estimates import Estimate, mean
from eval.measures.measure import Column
from eval.measures.sync import SyncMeasure
from eval.measures.sync_confidence import SyncResult
from latentsync.media.files import staged
from latentsync.third_party.sync_search import MAX_SHIFT

NONE = "-"


@dataclass(frozen=True)
class Row:
    """One video: what was found, or why nothing was."""

    name: str
    result: SyncResult | None
    reason: str | None = None


def to_json(measure: SyncMeasure, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that is known."""
    videos = []
    for row in rows:
        if row.result is None:
            videos.append({"video": row.name, "reason": row.reason})
        else:
            videos.append({"video": row.name, **measure.numbers(row.result), "tracks": row.result.tracks, "frames": row.result.frames})
    summary = {}
    for place, column in enumerate(measure.columns):
        found, values = estimate(measure, rows, place)
        if found is not None:
            summary[column.name] = {"mean": found.value, "low": found.low, "high": found.high, "median": median(values)}
    done = sum(row.result is not None for row in rows)
    head = {"warning": measure.warning} if measure.warning else {}
    head |= {"measure": measure.name, "protocol": measure.protocol, "settings": dict(measure.settings)}
    return {**head, "measured": done, "not_measured": len(rows) - done, "summary": summary, "videos": videos}


def to_markdown(measure: SyncMeasure, rows: Sequence[Row]) -> str:
    """The table: what it is, the summary's warning, a row for each video, the rows about all of them, what was left out and why."""
    columns = [column.name + (f" ({column.unit})" if column.unit else "") for column in measure.columns]
    lines = [f"# {'Sync confidence' if measure.warning is None else 'Sync in the eyes of a SyncNet of this project'}", ""]
    if measure.warning is not None:
        lines += [f"**{measure.warning}**", ""]
    lines += [f"| video | {' | '.join(columns)} | faces followed | frames | not measured because |", "|---" * (len(columns) + 4) + "|"]
    for row in rows:
        if row.result is None:
            cells = [NONE] * (len(columns) + 2) + [_cell(row.reason or "")]
        else:
            numbers = measure.numbers(row.result)
            shown = [_number(numbers[column.name], _row_digits(column)) for column in measure.columns]
            cells = [*shown, str(row.result.tracks), str(row.result.frames), ""]
        lines.append(f"| {' | '.join([_cell(row.name), *cells])} |")
    estimates = [estimate(measure, rows, place) for place in range(len(columns))]
    digits = [column.digits for column in measure.columns]
    means = [_interval(found, count) for (found, _), count in zip(estimates, digits, strict=True)]
    medians = [_number(median(values), count) if values else NONE for (_, values), count in zip(estimates, digits, strict=True)]
    lines += [
        f"| **mean (95 % interval)** | {' | '.join(means)} | | | |",
        f"| **median** | {' | '.join(medians)} | | | |",
    ]
    return "\n".join([*lines, "", *_notes(rows), "", measure.protocol]) + "\n"


def estimate(measure: SyncMeasure, rows: Sequence[Row], place: int) -> tuple[Estimate | None, list[float]]:
    """The mean of a column over the videos that were measured, and its values."""
    name = measure.columns[place].name
    values = [measure.numbers(row.result)[name] for row in rows if row.result is not None]
    return mean(values), values


def draw(measure: SyncMeasure, rows: Sequence[Row], path: Path) -> None:
    """Write a picture (PNG) with the histograms of confidences and of offsets. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here, because importing it looks for a folder of settings
    from matplotlib.figure import Figure

    results = [row.result for row in rows if row.result is not None]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    confidences = np.array([result.confidence for result in results])
    left.hist(confidences, bins=min(30, 5 + len(results) // 4), color="#1f5fa8")
    left.axvline(confidences.mean(), color="#c8501e", label=f"mean {confidences.mean():.2f}")
    left.set(xlabel="confidence" if measure.warning is None else "difference of cosines (NOT Sync-C)", ylabel="videos")
    left.legend(fontsize=8)
    offsets = Counter(result.offset for result in results)
    right.bar(list(offsets), list(offsets.values()), color="#1f5fa8")
    right.set(xlabel="offset in frames: +, the sound comes too early", ylabel="videos", xlim=(-MAX_SHIFT - 1, MAX_SHIFT + 1))
    for axes in (left, right):
        axes.yaxis.get_major_locator().set_params(integer=True)
    title = f"{len(results)} of {len(rows)} videos, SyncNet v2" if measure.warning is None else _folded(measure.warning)
    figure.suptitle(title, color="black" if measure.warning is None else "#c00000", fontsize=10)
    with staged(path) as temporary:
        canvas.print_figure(temporary, dpi=110, format="png")


def _notes(rows: Sequence[Row]) -> list[str]:
    offsets = [row.result.offset for row in rows if row.result is not None]
    notes = [f"{len(offsets)} of {len(rows)} videos were measured."]
    if offsets:
        zero, near = (sum(abs(offset) <= reach for offset in offsets) for reach in (0, 1))
        notes.append(f"Offset 0: {zero} of {len(offsets)}; one frame at most: {near} of {len(offsets)}.")
    left_out = len(rows) - len(offsets)
    return [*notes, f"{left_out} could not be measured; the reasons stand in their rows."] if left_out else notes


def _row_digits(column: Column) -> int:
    """The offset of one video is a whole number."""
    return 0 if column.unit == "frames" else column.digits


def _interval(found: Estimate | None, digits: int) -> str:
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return _number(found.value, digits)
    return f"{_number(found.value, digits)} ({_number(found.low, digits)} to {_number(found.high, digits)})"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _folded(text: str) -> str:
    """Two lines instead of one."""
    first, _, rest = text.partition(". ")
    return f"{first}.\n{rest}"
