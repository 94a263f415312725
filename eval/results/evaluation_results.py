"""What an evaluation leaves behind for programs and for reading: results.json and results.md."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.measures.available import Missing
from eval.measures.estimates import Estimate
from eval.measures.measure import Case, Column, Kind, Measure, Numbers, SetMeasure
from eval.results.plain import plain
from eval.runs.measuring import Reading
from eval.runs.pairs import PairList
from eval.runs.summary import Row, rows_of, set_rows
from latentsync.media.files import write_json, write_text

NOT_MEASURED = "-"
BETTER = {"high": "higher", "low": "lower", "zero": "nearer to 0", None: ""}
TITLES: Mapping[Kind, str] = {
    "reconstruction": "Reconstruction: each video with its own sound",
    "cross": "Cross: each video with the sound of another",
}
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "diffusers", "lpips", "openai-whisper")


@dataclass(frozen=True)
class Outcome:
    """Everything that an evaluation found out.

    Attributes:
        settings, weights: what decided the numbers; weights by name with SHA-256.
        pairs: the list that was to be measured.
        cases: those that were, in order.
        numbers: measure -> case -> reading.
        features: measure of sets -> case -> reading.
        failed: case -> why nothing is known of it.
        warnings: case -> what is to be known about it.
        missing: measures that could not take part.
        stand_ins: sentences on networks that are random or stand for others.
    """

    settings: Mapping[str, Any]
    weights: Mapping[str, str]
    pairs: PairList
    cases: Sequence[Case]
    measures: Sequence[Measure]
    sets: Sequence[SetMeasure]
    numbers: Mapping[str, Mapping[str, Reading[Numbers]]]
    features: Mapping[str, Mapping[str, Reading[np.ndarray]]]
    failed: Mapping[str, str]
    warnings: Mapping[str, Sequence[str]]
    missing: Sequence[Missing]
    stand_ins: Sequence[str]

    def rows(self) -> list[Row]:
        """The table, measures of sets last."""
        kinds = {case.name: case.kind for case in self.cases}
        single = [row for measure in self.measures for row in rows_of(measure, kinds, self.numbers[measure.name])]
        return [*single, *(row for measure in self.sets for row in set_rows(measure, kinds, self.features[measure.name]))]

    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        asked = len(self.cases) + len(self.failed)
        notes = [
            f"{len(self.cases)} of {asked} videos measured. In brackets: 95 % intervals, the bootstrap over videos; for sets of videos "
            "the jackknife over groups of them. Ground truth: the source itself in the place of the video, through the same measure.",
        ]
        notes += [f"Left out: {why}" for why in self.pairs.refused.values()]
        notes += [f"Left out: {name}: {why}" for name, why in self.failed.items()]
        for name in self.numbers:
            readings = self.numbers[name]
            lost = {case: reading.failed for case, reading in readings.items() if reading.failed}
            if lost:
                first = next(iter(lost))
                notes.append(f"{name}: {len(lost)} of {len(readings)} videos could not be measured; the first was {first}: {lost[first]}")
            elif not any(value is not None for reading in readings.values() for value in (reading.made or {}).values()):
                notes.append(f"{name} has no number of any of these videos; its protocol says of which there is one.")
        return [*notes, *(f"{case}: {warning}" for case, found in self.warnings.items() for warning in found)]


def write_results(outcome: Outcome, rows: Sequence[Row], folder: Path) -> str:
    """Write results.json and results.md; the text of the latter. Raises OutputError."""
    write_json(folder / "results.json", as_json(outcome, rows))
    text = to_markdown(outcome, rows)
    write_text(folder / "results.md", text)
    return text


def as_json(outcome: Outcome, rows: Sequence[Row]) -> dict[str, Any]:
    """All numbers and all that they depend on."""
    digests = outcome.pairs.checksums
    described = [(measure, measure.columns) for measure in outcome.measures] + [(measure, [measure.column]) for measure in outcome.sets]
    return {
        "stand_ins": list(outcome.stand_ins),
        "settings": dict(outcome.settings),
        "weights": dict(outcome.weights),
        "versions": versions(),
        "pairs": [
            {"name": pair.name, "kind": pair.kind, "source": digests[str(pair.source)], "audio": digests[str(pair.audio)]}
            for pair in outcome.pairs.pairs
        ],
        "measures": {
            measure.name: {"protocol": measure.protocol, "columns": [plain(column) for column in columns]} for measure, columns in described
        },
        "missing": [plain(entry) for entry in outcome.missing],
        "rows": [plain(row) for row in rows],
        "refused": outcome.pairs.refused,
        "failed": dict(outcome.failed),
        "cases": {case.name: _case_as_json(outcome, case) for case in outcome.cases},
    }


def _case_as_json(outcome: Outcome, case: Case) -> dict[str, Any]:
    readings = {name: found[case.name] for name, found in outcome.numbers.items()}
    return {
        "kind": case.kind,
        "video": str(case.video),
        "source": str(case.source),
        "audio": str(case.audio),
        "warnings": list(outcome.warnings.get(case.name, ())),
        "measures": {name: {"made": reading.made, "truth": reading.truth, "failed": reading.failed} for name, reading in readings.items()},
    }


def versions() -> dict[str, str]:
    """Of what computed the numbers."""
    found = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def to_markdown(outcome: Outcome, rows: Sequence[Row]) -> str:
    """The tables with protocols, what is missing, and what is to be known."""
    lines = ["# Evaluation", ""]
    if outcome.stand_ins:
        lines += ["> **THESE FIGURES ARE NOT THOSE OF THE PUBLISHED PROTOCOLS:**", ">"]
        lines += [line for words in outcome.stand_ins for line in (f"> - **{words}**",)] + [""]
    for kind, title in TITLES.items():
        of_kind = [row for row in rows if row.kind == kind]
        if of_kind:
            lines += [f"## {title}", "", *table_lines(of_kind), ""]
    lines += ["## Protocols", ""]
    lines += [f"- **{measure.name}**: {measure.protocol}" for measure in (*outcome.measures, *outcome.sets)]
    if outcome.missing:
        lines += ["", "## Not measured, since weights are missing", ""]
        lines += [f"- **{entry.measure}**: {entry.why}" for entry in outcome.missing]
    return "\n".join([*lines, "", "## To be known", "", *(f"- {note}" for note in outcome.notes())]) + "\n"


def table_lines(rows: Sequence[Row]) -> list[str]:
    """A table in Markdown."""
    lines = ["| measure | value | ground truth | n | better |", "|---|---|---|---|---|"]
    for row in rows:
        count = NOT_MEASURED if row.made is None else str(row.made.count)
        value = cell(row.made, row.column) if row.made is not None else f"{NOT_MEASURED} ({row.note})"
        cells = (label(row), value, cell(row.truth, row.column), count, BETTER[row.column.better])
        lines.append(f"| {' | '.join(text.replace('|', '/') for text in cells)} |")
    return lines


def label(row: Row) -> str:
    """What a row is called."""
    name = row.column.name if row.column.name.startswith(row.measure) else f"{row.measure}: {row.column.name}"
    return f"{name}, {row.column.unit}" if row.column.unit else name


def cell(found: Estimate | None, column: Column) -> str:
    """A value with its interval."""
    if found is None:
        return NOT_MEASURED
    interval = "" if found.low is None or found.high is None else f" [{found.low:.{column.digits}f}, {found.high:.{column.digits}f}]"
    return f"{found.value:.{column.digits}f}{interval}"
