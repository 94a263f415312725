"""Two evaluations of the same pairs, video by video: `python -m eval.compare A B [--output compare.md]`."""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.estimates import NONE, json_value, markdown_table, mean
from latentsync.cli import CODES, run_command
from latentsync.errors import InputError
from latentsync.media.files import check_target, read_record, write_json, write_text

RESULTS = "results.json"
HEADER = ("measure", "kind", "A", "B", "B - A [95 %]", "B better / worse / same", "n")
OLD_WORDS = {  # in results of older versions -> now
    r"\bmade\b": "generated",
    r"\btruth\b": "reference",
    r"\bown_sync": "stable_sync",
    "mouth reader": "landmark network",
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.compare",
        description="Compare two evaluations of the same pairs: mean differences with 95 % intervals, and how often B is better.",
        epilog=CODES,
    )
    parser.add_argument("a", type=Path, metavar="A", help="folder of the first evaluation, or its results.json")
    parser.add_argument("b", type=Path, metavar="B", help="the same of the second")
    parser.add_argument("--output", type=Path, help="also write the table to this .md file, and all differences to a .json file beside it")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_args(arguments)


def read_results(place: Path) -> dict[str, Any]:
    """The results of an evaluation, those of older versions in the words of this one. Raises InputError."""
    path = place / RESULTS if place.is_dir() else place
    content = read_record(path)
    if not {"pairs", "measures", "cases"} <= content.keys():
        raise InputError(f"{path} is no file of results of eval.run: name the folder that it wrote")
    if any("made" in result for case in content["cases"].values() for result in case["measures"].values()):
        content |= with_new_words({key: content.get(key, []) for key in ("measures", "stand_ins")})
        for case in content["cases"].values():
            case["measures"] = with_new_words(case["measures"])
    return content


def with_new_words(content: Any) -> Any:
    """Part of the results of an older version with keys, names of metrics and protocols as they are now."""
    text = json.dumps(content)
    for old, new in OLD_WORDS.items():
        text = re.sub(old, new, text)
    return json.loads(text)


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
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
            kinds = dict.fromkeys(case["kind"] for case in a["cases"].values())
            found = [compare_column(a, b, measure, column, kind) for column in about["columns"] for kind in kinds]
            differences += [difference for difference in found if difference is not None]
    notes += [f"{measure} is not in A." for measure in b["measures"] if measure not in a["measures"]]
    if not differences:
        raise InputError(f"The two evaluations share no number of a video{': ' + ' '.join(notes) if notes else ''}")
    return differences, notes


def compare_column(a: Mapping[str, Any], b: Mapping[str, Any], measure: str, column: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """One number of one kind of case, B less A, over the videos that both have; None where there is none."""
    names = [name for name, case in a["cases"].items() if case["kind"] == kind and name in b["cases"]]
    numbers = [[run["cases"][name]["measures"].get(measure, {}).get("generated") or {} for run in (a, b)] for name in names]
    pairs = np.array([[one.get(column["name"]) for one in both] for both in numbers], dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    if (estimate := mean((pairs[:, 1] - pairs[:, 0]).tolist())) is None:
        return None
    first, second = np.abs(pairs.T) if column["better"] == "zero" else pairs.T
    gains = (second - first) * {"high": 1, "low": -1, "zero": -1, None: np.nan}[column["better"]]
    return {
        **{"measure": measure, "column": column, "kind": kind, "mean_a": pairs[:, 0].mean(), "mean_b": pairs[:, 1].mean()},
        **{"mean": estimate.value, "low": estimate.low, "high": estimate.high, "count": estimate.count},
        **{"better": None, "worse": None},  # in how many videos B is so; None where neither way is better
        **({} if column["better"] is None else {"better": int((gains > 0).sum()), "worse": int((gains < 0).sum())}),
        "equal": int((pairs[:, 0] == pairs[:, 1]).sum()),
    }


def to_markdown(differences: Sequence[Mapping[str, Any]], notes: Sequence[str], names: tuple[str, str]) -> str:
    rows = []
    for found in differences:
        column, low, high = found["column"], found["low"], found["high"]
        digits = column["digits"]
        difference = f"{found['mean']:+.{digits}f}"
        if low is not None and high is not None:
            difference += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
            if low > 0 or high < 0:
                difference = f"**{difference}**"
        better, worse = found["better"], found["worse"]
        sides = NONE if better is None else f"{better} / {worse} / {found['count'] - better - worse}"
        name = column["name"] + (f", {column['unit']}" if column["unit"] else "")
        means = (f"{found[key]:.{digits}f}" for key in ("mean_a", "mean_b"))
        rows.append((name, found["kind"], *means, difference, sides, str(found["count"])))
    about = "Means over the videos that both have; intervals by the bootstrap over paired differences; bold where 0 lies outside."
    parts = ["# Comparison", f"A: {names[0]}", f"B: {names[1]}", markdown_table(HEADER, rows), about, *notes]
    return "\n\n".join(parts) + "\n"


def run(parsed: argparse.Namespace) -> None:
    if parsed.output is not None:
        check_target(parsed.output, [parsed.a, parsed.b])
    differences, notes = compare(read_results(parsed.a), read_results(parsed.b))
    table = to_markdown(differences, notes, (str(parsed.a), str(parsed.b)))
    if parsed.output is not None:
        write_text(parsed.output, table)
        write_json(parsed.output.with_suffix(".json"), {"differences": json_value(differences), "notes": notes})
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "nothing was written.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
