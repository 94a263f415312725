"""Two evaluations of the same pairs, video by video: `python -m eval.compare A B [--output compare.md]`."""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentsync.cli import CODES, run_command
from latentsync.errors import InputError

RESULTS = "results.json"
BETTER_SIGN = {"high": 1, "low": -1}
HEADER = ("measure", "kind", "A", "B", "B - A [95 %]", "B better / worse / same", "n")
OLD_WORDS = {  # in results of older versions -> now
    r"\bmade\b": "generated",
    r"\btruth\b": "reference",
    r"\bown_sync": "stable_sync",
    "mouth reader": "landmark network",
}


@dataclass(frozen=True)
class Difference:
    """One number of one kind of case, B less A, over the videos that both have.

    Attributes:
        better, worse, equal: in how many videos B is so; None where neither way is better.
    """

    measure: str
    column: Mapping[str, Any]
    kind: str
    mean_a: float
    mean_b: float
    mean: float
    low: float | None
    high: float | None
    count: int
    better: int | None
    worse: int | None
    equal: int


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.compare",
        description="Compare two evaluations of the same pairs: mean differences with their 95 %% intervals, and how often B is better.",
        epilog=CODES,
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of one evaluation, or its results.json")
    parser.add_argument("b", type=Path, metavar="B", help="... of the other one")
    parser.add_argument("--output", type=Path, help="write the table there too (.md), with all differences beside it as .json")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser.parse_args(arguments)


def read_results(place: Path) -> dict[str, Any]:
    """The results of an evaluation. Raises InputError."""
    path = place / RESULTS if place.is_dir() else place
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read as results of an evaluation: name the folder that eval.run wrote") from None
    if not isinstance(content, dict) or not {"pairs", "measures", "cases"} <= content.keys():
        raise InputError(f"{path} holds no results of eval.run: name the folder that it wrote")
    return with_new_words(content) if any(is_old(case) for case in content["cases"].values()) else content


def is_old(case: Mapping[str, Any]) -> bool:
    """Whether the record of a case is of a version that said "made" and "truth"."""
    return any("made" in reading for reading in case["measures"].values())


def with_new_words(content: dict[str, Any]) -> dict[str, Any]:
    """Results of an older version in the words of this one: keys, names of metrics, protocols."""
    text = json.dumps({key: content.get(key, []) for key in ("measures", "stand_ins")})
    cases = {name: json.dumps({"kind": case["kind"], "measures": case["measures"]}) for name, case in content["cases"].items()}
    for old, new in OLD_WORDS.items():
        text = re.sub(old, new, text)
        cases = {name: re.sub(old, new, case) for name, case in cases.items()}
    return {**content, **json.loads(text), "cases": {name: json.loads(case) for name, case in cases.items()}}


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[Difference], list[str]]:
    """The differences, and what is to be known. Raises InputError where the runs are about different pairs or share no number."""
    known = [{pair["name"]: (pair["kind"], pair["source"], pair["audio"]) for pair in run["pairs"]} for run in (a, b)]
    if known[0] != known[1]:
        apart = sorted(name for name in known[0].keys() | known[1].keys() if known[0].get(name) != known[1].get(name))
        raise InputError(
            f"The two evaluations are about different pairs ({len(apart)} differ, such as {apart[0]}): compare runs over one list"
        )
    notes = [f"{name} measures: {words}" for name, run in (("A", a), ("B", b)) for words in run.get("stand_ins", ())]
    differences = []
    for measure, about in a["measures"].items():
        if measure not in b["measures"]:
            notes.append(f"{measure} is not in B.")
        elif about["protocol"] != b["measures"][measure]["protocol"]:
            notes.append(f"{measure} is left out: A and B followed different protocols.")
        else:
            differences += [found for column in about["columns"] for found in compare_column(a, b, measure, column)]
    notes += [f"{measure} is not in A." for measure in b["measures"] if measure not in a["measures"]]
    if not differences:
        raise InputError(f"The two evaluations share no number of a video{': ' + ' '.join(notes) if notes else ''}")
    return differences, notes


def compare_column(a: Mapping[str, Any], b: Mapping[str, Any], measure: str, column: Mapping[str, Any]) -> list[Difference]:
    """One number, for each kind of case that has it in both."""
    from eval.estimates import mean

    found = []
    for kind in dict.fromkeys(case["kind"] for case in a["cases"].values()):
        names = [name for name, case in a["cases"].items() if case["kind"] == kind and name in b["cases"]]
        pairs = [(value_of(a, name, measure, column["name"]), value_of(b, name, measure, column["name"])) for name in names]
        both = [(one, other) for one, other in pairs if one is not None and other is not None]
        if not both:
            continue
        apart = [other - one for one, other in both]
        estimate = mean(apart)
        assert estimate is not None
        gains = None if column["better"] is None else [gain(one, other, column["better"]) for one, other in both]
        found.append(
            Difference(
                *(measure, column, kind, sum(one for one, _ in both) / len(both), sum(other for _, other in both) / len(both)),
                *(estimate.value, estimate.low, estimate.high, len(both)),
                *((None, None) if gains is None else (sum(g > 0 for g in gains), sum(g < 0 for g in gains))),
                sum(value == 0 for value in apart),
            )
        )
    return found


def gain(one: float, other: float, better: str) -> float:
    """By how much the other value is better."""
    return abs(one) - abs(other) if better == "zero" else BETTER_SIGN[better] * (other - one)


def value_of(run: Mapping[str, Any], case: str, measure: str, column: str) -> float | None:
    """One number of one video, if it has it."""
    numbers = run["cases"][case]["measures"].get(measure, {}).get("generated")
    return None if numbers is None else numbers.get(column)


def to_markdown(differences: Sequence[Difference], notes: Sequence[str], names: tuple[str, str]) -> str:
    """The table."""
    from eval.estimates import NONE, markdown_table

    rows = []
    for found in differences:
        digits, unit = found.column["digits"], found.column["unit"]
        difference = f"{found.mean:+.{digits}f}"
        if found.low is not None and found.high is not None:
            difference += f" [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
            if found.low > 0 or found.high < 0:
                difference = f"**{difference}**"
        same = found.count - (found.better or 0) - (found.worse or 0)
        sides = NONE if found.better is None else f"{found.better} / {found.worse} / {same}"
        name = found.column["name"] + (f", {unit}" if unit else "")
        means = (f"{found.mean_a:.{digits}f}", f"{found.mean_b:.{digits}f}")
        rows.append((name, found.kind, *means, difference, sides, str(found.count)))
    about = "Means over the videos that both have; intervals by the bootstrap over paired differences; bold where 0 lies outside."
    parts = ["# Comparison", f"A: {names[0]}", f"B: {names[1]}", markdown_table(HEADER, rows), about, *notes]
    return "\n\n".join(parts) + "\n"


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from eval.estimates import json_value
    from latentsync.media.files import check_target, write_json, write_text

    if parsed.output is not None:
        check_target(parsed.output, [parsed.a, parsed.b])
    differences, notes = compare(read_results(parsed.a), read_results(parsed.b))
    table = to_markdown(differences, notes, (str(parsed.a), str(parsed.b)))
    if parsed.output is not None:
        write_text(parsed.output, table)
        write_json(parsed.output.with_suffix(".json"), {"differences": json_value(differences), "notes": notes})
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "nothing was written.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
