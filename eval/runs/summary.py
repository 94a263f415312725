"""From the readings of all cases to rows: each number with its interval, beside that of the sources, for each kind of case."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.measures.estimates import Estimate, mean
from eval.measures.frechet import distance_estimate
from eval.measures.measure import Column, Kind, Measure, Numbers, SetMeasure
from eval.runs.measuring import Reading
from eval.runs.pairs import KINDS
from latentsync.errors import InputError

SIZE = "_size"  # ends the name of a column of absolute values
MOST_OFFSET = 2.0  # frames that real videos may be out of sync on average


@dataclass(frozen=True)
class Row:
    """One number of one kind of case.

    Attributes:
        made: of the videos under test; None where there is none.
        truth: of their sources in their place.
        note: why there is no number.
    """

    measure: str
    column: Column
    kind: Kind
    made: Estimate | None
    truth: Estimate | None
    note: str = ""


def rows_of(measure: Measure, kinds: Mapping[str, Kind], readings: Mapping[str, Reading[Numbers]]) -> list[Row]:
    """The rows of one measure; `kinds` and `readings` by case. A column without any number has none; where all failed there is one."""
    rows = []
    for kind in KINDS:
        found = [reading for name, reading in readings.items() if kinds[name] == kind]
        if not found:
            continue
        here = [Row(measure.name, column, kind, *(_mean(found, side, column) for side in ("made", "truth"))) for column in measure.columns]
        here += [
            Row(measure.name, sizes_of(column), kind, *(_mean(found, side, column, abs) for side in ("made", "truth")))
            for column in measure.columns
            if column.better == "zero"
        ]
        told = [row for row in here if row.made is not None]
        reason = next((reading.failed for reading in found if reading.failed), None)
        rows += told or ([] if reason is None else [Row(measure.name, measure.columns[0], kind, None, here[0].truth, reason)])
    return rows


def _mean(readings: Sequence[Reading[Numbers]], side: str, column: Column, change: Callable[[float], float] = float) -> Estimate | None:
    numbers = [getattr(reading, side) for reading in readings]
    values = [entry.get(column.name) for entry in numbers if entry is not None]
    return mean([None if value is None else change(value) for value in values])


def sizes_of(column: Column) -> Column:
    """Of numbers that should be 0: their sizes, whose mean no two signs cancel in."""
    return replace(column, name=f"{column.name}{SIZE}", better="low")


def doubts(rows: Sequence[Row]) -> list[str]:
    """Sentences on networks that find the sources themselves out of sync, which says more of the network than of the sources."""
    return [
        f"{row.measure}: this network hears the sources themselves {row.truth.value:.1f} frames out of sync on average ({row.kind}), so "
        "its figures say nothing about sync here: it is untrained, or was trained on other pictures, or the sources are out of sync."
        for row in rows
        if row.column.name.endswith(f"offset{SIZE}") and row.truth is not None and row.truth.value > MOST_OFFSET
    ]


def set_rows(measure: SetMeasure, kinds: Mapping[str, Kind], readings: Mapping[str, Reading[np.ndarray]]) -> list[Row]:
    """The rows of a measure of sets of videos, a Frechet distance; that of the sources to themselves is its ground truth."""
    rows = []
    for kind in KINDS:
        found = [reading for name, reading in readings.items() if kinds[name] == kind]
        told = [(reading.made, reading.truth) for reading in found if reading.made is not None and reading.truth is not None]
        if not found:
            continue
        try:
            made, real = [pair[0] for pair in told], [pair[1] for pair in told]
            truth = Estimate(measure.compare(real, real), None, None, len(real))
            rows.append(Row(measure.name, measure.column, kind, distance_estimate(made, real), truth))
        except InputError as error:
            reason = next((reading.failed for reading in found if reading.failed), str(error))
            rows.append(Row(measure.name, measure.column, kind, None, None, reason))
    return rows
