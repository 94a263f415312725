"""Lists of clips for training from a manifest, split by raw file or speaker: `python -m preprocess.file_list FOLDER --output train.txt`."""

import argparse
import contextlib
import hashlib
import json
import logging
import math
import operator
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentsync.cli import run_command
from latentsync.errors import InputError
from latentsync.media.files import check_target, staged
from preprocess.manifest import Manifest, read_manifest
from preprocess.step import Fact

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
_GROUPINGS = {"file": "(.+)", "folder": "^([^/]+)/"}  # --group_by -> pattern of a raw file's path; its first group names the file's
_GROUPING_HELP = "write 'file', 'folder', or a pattern such as '(speaker[0-9]+)_'"
_LAST_NUMBER = re.compile(r"[_\-. ]+\d+$")
_COMMON_NAMES = frozenset({"", "clip", "video", "person", "speaker", "face", "recording", "sample", "file"})  # that name no speaker
_LARGE = 0.8  # share of all clips in one group that is worth a warning


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


@dataclass(frozen=True)
class Split:
    """Which clips are for validation: whole groups of raw files, drawn by nothing but their names and the seed.

    Attributes:
        share: of the groups that are for validation, 0 to 1.
        seed: another one draws other groups.
        pattern: its first capturing group, found in a raw file's path, is the name of the file's group; a file that it does not match is a
            group of its own.
    """

    share: float
    seed: int
    pattern: re.Pattern[str] = re.compile("(.+)")

    def group(self, source: str) -> str | None:
        """The group of a raw file; None where the pattern does not match."""
        match = self.pattern.search(source)
        return match.group(1) or None if match is not None else None

    def draw(self, group: str) -> float:
        """A number from 0 to 1: the groups under `share` are for validation."""
        digest = hashlib.blake2b(f"{self.seed}\0{group}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


@dataclass
class Counts:
    """What went into the lists.

    Attributes:
        train, val: clips.
        groups: group -> clips.
        speakers: folder or name of raw files, see `speaker_of` -> the lists that it is in.
        alone: raw files that the pattern does not match.
    """

    train: int = 0
    val: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    speakers: dict[str, set[str]] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)


def read_grouping(text: str) -> re.Pattern[str]:
    """What --group_by says, as a pattern of raw files' paths. Raises InputError."""
    try:
        pattern = re.compile(_GROUPINGS.get(text, text))
    except re.error as error:
        raise InputError(f"--group_by {text!r} is no regular expression ({error}): {_GROUPING_HELP}") from None
    if not pattern.groups:
        raise InputError(f"--group_by {text!r} has no part in parentheses that names a group: {_GROUPING_HELP}")
    return pattern


def speaker_of(source: str) -> str:
    """What may tell the speaker of a raw file: its first folder, or else its name without a number at the end."""
    folder, is_inside, _ = source.partition("/")
    stem = Path(source).stem
    name = _LAST_NUMBER.sub("", stem)
    return folder if is_inside else stem if name.lower() in _COMMON_NAMES else name


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


def write_lists(manifest: Manifest, output: Path, val: Path | None, split: Split, conditions: Sequence[Comparison]) -> Counts:
    """Write one clip a line, relative to the list. Raises InputError, OutputError."""
    counts = Counts()
    with contextlib.ExitStack() as stack:
        train_file = stack.enter_context(stack.enter_context(staged(output)).open("wb"))
        val_file = stack.enter_context(stack.enter_context(staged(val)).open("wb")) if val is not None else None
        for source, clip in chosen_clips(manifest, conditions):
            group = split.group(source)
            if group is None:
                counts.alone.add(source)
                group = source
            counts.groups[group] += 1
            speaker = speaker_of(source)
            if val is not None and val_file is not None and split.draw(group) < split.share:
                val_file.write(_line(clip, val))
                counts.val += 1
                counts.speakers.setdefault(speaker, set()).add("val")
            else:
                train_file.write(_line(clip, output))
                counts.train += 1
                counts.speakers.setdefault(speaker, set()).add("train")
    return counts


def warnings(counts: Counts, split: Split, with_val: bool) -> Iterator[str]:
    """What a person should know about the lists before training on them."""
    if not counts.groups:
        yield "No clip is in the lists: ease --where"
        return
    if counts.alone:
        yield (f"--group_by does not match {len(counts.alone)} raw files, such as {min(counts.alone)}: each of them is a group of its own")
    if not with_val:
        return
    groups, (largest, clips) = len(counts.groups), counts.groups.most_common(1)[0]
    if not counts.val:
        least = math.floor(100 * min(map(split.draw, counts.groups)) + 1) / 100  # draws one group at least
        cure = (
            f"choose a --val_share of {least:g} or more, or another --seed"
            if groups > 1
            else "add other raw files, or split by --group_by file"
        )
        yield f"The list for validation is empty: none of {groups} groups of raw files was drawn with --val_share {split.share:g}: {cure}"
    elif not counts.train:
        yield f"The list for training is empty: all {groups} groups of raw files are for validation: choose a smaller --val_share"
    elif clips > _LARGE * (counts.train + counts.val):
        yield (
            f"One of {groups} groups, {largest}, holds {clips} of {counts.train + counts.val} clips, and stays in one list: "
            "use another --group_by, or add other raw files"
        )
    both = sorted(speaker for speaker, lists in counts.speakers.items() if len(lists) > 1)
    if both and len(counts.speakers) > 1:
        yield (
            f"{len(both)} of {len(counts.speakers)} folders or names, such as {both[0]}, have clips in both lists: where each is "
            "one speaker, keep them apart with --group_by folder, or with a pattern of their names"
        )


def _line(clip: Path, target: Path) -> bytes:
    """A clip as the list names it: seen from the list's folder, and never to be taken for a comment."""
    text = os.path.relpath(clip, target.resolve().parent)
    return os.fsencode(f"./{text}\n" if text.startswith(("#", " ")) else f"{text}\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.file_list",
        description="Write the clips that came through a pipeline as lists for training and validation (data.train_fileslist).",
        epilog="The clips of one group never stand in both lists, and new raw files move none from one list to the other. "
        "Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("manifest", type=Path, help="manifest.sqlite, or the folder that holds it")
    parser.add_argument("--output", type=Path, required=True, help="the list for training")
    parser.add_argument("--val", type=Path, help="the list for validation (default: none, all clips are for training)")
    parser.add_argument("--val_share", type=float, default=0.05, help="share of the groups for validation (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another number draws other groups for validation (default %(default)s)")
    parser.add_argument(
        "--group_by",
        default="file",
        metavar="GROUPING",
        help="what stays together in one list: the clips of a raw 'file' (default), of a 'folder' in the input folder (a speaker each), "
        "or of raw files in whose path, such as a/b_1.mp4, the first (...) of this regular expression finds the same",
    )
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
    split = Split(arguments.val_share, arguments.seed, read_grouping(arguments.group_by))
    with read_manifest(arguments.manifest) as manifest:
        for target in filter(None, (arguments.output, arguments.val)):
            check_target(target)
        counts = write_lists(manifest, arguments.output, arguments.val, split, conditions)
    logger.info("%d clips for training%s", counts.train, f", {counts.val} for validation" if arguments.val else "")
    for warning in warnings(counts, split, arguments.val is not None):
        logger.warning("%s", warning)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "no list was written.")


if __name__ == "__main__":
    sys.exit(main())
