"""Lists of clips for training from a manifest, split by raw source: `python -m preprocess.file_list MANIFEST --output train.txt`."""

import argparse
import contextlib
import hashlib
import json
import logging
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentsync.command import run_command
from latentsync.errors import InputError
from latentsync.media.files import check_target, staged
from preprocess.manifest import Manifest
from preprocess.manifest_file import read_manifest
from preprocess.stage import Fact

logger = logging.getLogger("preprocess.pipeline")

_OPERATORS: dict[str, Callable[[Fact, Fact], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|!=|==|=|>|<)\s*([^\s<>=!].*?)\s*$")


@dataclass(frozen=True)
class Comparison:
    """One condition on a fact, such as "confidence>=4"."""

    fact: str
    sign: str
    value: float | str

    def holds(self, facts: dict[str, Fact]) -> bool:
        """Whether a clip fulfils it; one without the fact, or with another kind of value, does not."""
        found = facts.get(self.fact)
        if found is None:
            return False
        if isinstance(self.value, float):
            return isinstance(found, int | float) and _OPERATORS[self.sign](found, self.value)
        return isinstance(found, str) and _OPERATORS[self.sign](found, self.value)


def read_comparison(text: str) -> Comparison:
    """Read "fact sign value". Raises InputError."""
    match = _COMPARISON.match(text)
    if match is None:
        raise InputError(f"--where {text!r} is no comparison: write a fact, a sign and a value, such as 'confidence>=4'")
    fact, sign, value = match.groups()
    bare = value.strip("'\"")
    if bare.lower() in ("true", "false"):
        return Comparison(fact, sign, float(bare.lower() == "true"))
    try:
        return Comparison(fact, sign, float(bare))
    except ValueError:
        return Comparison(fact, sign, bare)


def is_validation(source: str, share: float, seed: int) -> bool:
    """Whether the clips of a raw file are for validation; it depends on nothing but its name and the seed."""
    digest = hashlib.blake2b(f"{seed}\0{source}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def chosen_clips(manifest: Manifest, conditions: Sequence[Comparison]) -> Iterator[tuple[str, Path]]:
    """Raw source and absolute path of each clip that came through and fulfils the conditions. Raises InputError."""
    names = manifest.step_names()
    if not names:
        raise InputError(f"{manifest.places.output} has seen no run yet: run the pipeline first")
    known: set[str] = set()
    for row in manifest.connection.execute("SELECT * FROM clips WHERE step = ? AND kept ORDER BY source, name", (names[-1],)):
        facts = json.loads(row["facts"])
        known |= facts.keys()
        if all(condition.holds(facts) for condition in conditions):
            yield row["source"], manifest.places.of(row["path"], row["made"])
    unknown = next((condition.fact for condition in conditions if known and condition.fact not in known), None)
    if unknown is not None:
        raise InputError(f"--where names {unknown!r}, and no clip has such a fact: choose from {', '.join(sorted(known))}")


def write_lists(
    manifest: Manifest, output: Path, val: Path | None, val_share: float, seed: int, conditions: Sequence[Comparison]
) -> tuple[int, int]:
    """Write one clip a line, relative to the list; how many for training and for validation. Raises InputError, OutputError."""
    train_count = val_count = 0
    with contextlib.ExitStack() as stack:
        train_file = stack.enter_context(stack.enter_context(staged(output)).open("wb"))
        val_file = stack.enter_context(stack.enter_context(staged(val)).open("wb")) if val is not None else None
        for source, clip in chosen_clips(manifest, conditions):
            if val is not None and val_file is not None and is_validation(source, val_share, seed):
                val_file.write(_line(clip, val))
                val_count += 1
            else:
                train_file.write(_line(clip, output))
                train_count += 1
    return train_count, val_count


def _line(clip: Path, target: Path) -> bytes:
    """A clip as the list names it: seen from the list's folder, and never to be taken for a comment."""
    text = os.path.relpath(clip, target.resolve().parent)
    return os.fsencode(f"./{text}\n" if text.startswith(("#", " ")) else f"{text}\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.file_list",
        description="Write the clips that came through a pipeline as lists for training and validation (data.train_fileslist).",
        epilog="The clips of one raw file never stand in both lists, and new raw files move none from one list to the other. "
        "Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("manifest", type=Path, help="manifest.sqlite, or the folder that holds it")
    parser.add_argument("--output", type=Path, required=True, help="the list for training")
    parser.add_argument("--val", type=Path, help="the list for validation (default: none, all clips are for training)")
    parser.add_argument("--val_share", type=float, default=0.05, help="share of the raw files for validation (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another number draws other files for validation (default %(default)s)")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COMPARISON",
        help="only clips with such a fact, as 'confidence>=4'; may be repeated",
    )
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if not 0 <= arguments.val_share <= 1:
        raise InputError(f"--val_share {arguments.val_share:g}: give a share from 0 to 1")
    if arguments.val is not None and arguments.val.resolve() == arguments.output.resolve():
        raise InputError("--output and --val name the same file: give two")
    conditions = [read_comparison(text) for text in arguments.where]
    with read_manifest(arguments.manifest) as manifest:
        for target in filter(None, (arguments.output, arguments.val)):
            check_target(target)
        train, val = write_lists(manifest, arguments.output, arguments.val, arguments.val_share, arguments.seed, conditions)
    logger.info("%d clips for training%s", train, f", {val} for validation" if arguments.val else "")
    if not train or (arguments.val and not val):
        logger.warning("One of the lists is empty: ease --where, or choose another --val_share or --seed")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "no list was written.")


if __name__ == "__main__":
    sys.exit(main())
