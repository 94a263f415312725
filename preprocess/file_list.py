"""Lists of clips for training from a manifest, split by raw file or speaker: `python -m preprocess.file_list FOLDER --output train.txt`."""

import argparse
import contextlib
import hashlib
import logging
import math
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentsync.cli import CODES, run_command
from latentsync.errors import InputError
from latentsync.media.files import check_target, staged
from preprocess.manifest import Manifest, read_manifest

logger = logging.getLogger("preprocess.pipeline")

_CONDITION = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|!=|==|=|>|<)\s*([^\s<>=!].*?)\s*$")
_GROUPINGS = {"file": "(.+)", "folder": "^([^/]+)/"}  # --group_by -> pattern of a raw file's path; its first group names the file's
_GROUPING_HELP = "write 'file', 'folder', or a pattern such as '(speaker[0-9]+)_'"
_LAST_NUMBER = re.compile(r"[_\-. ]+\d+$")
_COMMON_NAMES = frozenset({"", "clip", "video", "person", "speaker", "face", "recording", "sample", "file"})  # that name no speaker
Condition = tuple[str, str, tuple[float | str | bool, ...]]  # a fact, a condition on it as SQL, and the parameters of that
_LARGE = 0.8  # share of all clips in one group that is worth a warning


def read_condition(text: str) -> Condition:
    """Read "fact sign value", such as "confidence>=4"; clips without it, or with another kind, do not fulfil it. Raises InputError."""
    match = _CONDITION.match(text)
    if match is None:
        raise InputError(f"--where {text!r} is no comparison: write a fact, a sign and a value, such as 'confidence>=4'")
    fact, sign, value = match[1], match[2], match[3].strip("'\"")
    found: float | str = value
    with contextlib.suppress(ValueError):
        found = float({"true": "1", "false": "0"}.get(value.lower(), value))
    clause = f"json_extract(facts, ?) {sign} ? AND (typeof(json_extract(facts, ?)) = 'text') = ?"
    return fact, clause, (f'$."{fact}"', found, f'$."{fact}"', isinstance(found, str))


@dataclass(frozen=True)
class Split:
    """Which clips are for validation: whole groups of raw files, drawn by nothing but their names and the seed."""

    share: float  # of the groups that are for validation, 0 to 1
    seed: int  # another one draws other groups
    pattern: re.Pattern[str]  # its first capturing group, found in a raw file's path, is the name of the file's group

    def named(self, source: str) -> str | None:
        """The group of a raw file; None where the pattern does not match."""
        match = self.pattern.search(source)
        return match.group(1) or None if match is not None else None

    def group(self, source: str) -> str:
        """The group of a raw file, the file itself where the pattern does not match."""
        return self.named(source) or source

    def draw(self, group: str) -> float:
        """A number from 0 to 1: the groups under `share` are for validation."""
        digest = hashlib.blake2b(f"{self.seed}\0{group}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def is_val(self, source: str) -> bool:
        return self.draw(self.group(source)) < self.share


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


def chosen_clips(manifest: Manifest, conditions: Sequence[Condition]) -> Iterator[tuple[str, Path]]:
    """Raw source and absolute path of each clip that came through and fulfils the conditions. Raises InputError."""
    names = manifest.step_names()
    if not names:
        raise InputError(f"{manifest.output} has seen no run yet: run the pipeline first")
    if conditions:
        query = "SELECT DISTINCT fact.key FROM clips, json_each(clips.facts) AS fact WHERE clips.step = ? AND clips.kept"
        known = {row[0] for row in manifest.connection.execute(query, (names[-1],))}
        unknown = next((fact for fact, *_ in conditions if known and fact not in known), None)
        if unknown is not None:
            raise InputError(f"--where names {unknown!r}, and no clip has such a fact: choose from {', '.join(sorted(known))}")
    clauses = " AND ".join(["step = ?", "kept", *(clause for _, clause, _ in conditions)])
    values = [names[-1], *(value for _, _, parameters in conditions for value in parameters)]
    for row in manifest.connection.execute(f"SELECT * FROM clips WHERE {clauses} ORDER BY source, name", values):
        yield row["source"], manifest.path_of(row)


def write_lists(manifest: Manifest, output: Path, val: Path | None, split: Split, conditions: Sequence[Condition]) -> Counter[str]:
    """Write one clip a line, relative to the list; how many of each raw file. Raises InputError, OutputError."""
    sources: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        train_file = stack.enter_context(stack.enter_context(staged(output)).open("wb"))
        val_file = stack.enter_context(stack.enter_context(staged(val)).open("wb")) if val is not None else None
        for source, clip in chosen_clips(manifest, conditions):
            sources[source] += 1
            if val is not None and val_file is not None and split.is_val(source):
                val_file.write(_line(clip, val))
            else:
                train_file.write(_line(clip, output))
    return sources


def warnings(sources: Counter[str], split: Split, with_val: bool) -> Iterator[str]:
    """Problems of the lists, by the number of clips of each raw file."""
    if not sources:
        yield "No clip is in the lists: ease --where"
        return
    alone = [source for source in sources if split.named(source) is None]
    if alone:
        yield f"--group_by does not match {len(alone)} raw files, such as {min(alone)}: each of them is a group of its own"
    if not with_val:
        return
    groups: Counter[str] = Counter()
    speakers: dict[str, set[bool]] = defaultdict(set)  # -> the lists that it is in
    for source, clips in sources.items():
        groups[split.group(source)] += clips
        speakers[speaker_of(source)].add(split.is_val(source))
    draws, total = [split.draw(group) for group in groups], sources.total()
    (largest, clips), share = groups.most_common(1)[0], split.share
    if min(draws) >= share:
        least = math.floor(100 * min(draws) + 1) / 100  # draws one group at least
        several = f"choose a --val_share of {least:g} or more, or another --seed"
        cure = several if len(groups) > 1 else "add other raw files, or split by --group_by file"
        yield f"The list for validation is empty: none of {len(groups)} groups of raw files was drawn with --val_share {share:g}: {cure}"
    elif max(draws) < share:
        yield f"The list for training is empty: all {len(groups)} groups of raw files are for validation: choose a smaller --val_share"
    elif clips > _LARGE * total:
        holds = f"One of {len(groups)} groups, {largest}, holds {clips} of {total} clips"
        yield f"{holds}, and stays in one list: use another --group_by, or add other raw files"
    both = sorted(speaker for speaker, lists in speakers.items() if len(lists) > 1)
    if both and len(speakers) > 1:
        yield (
            f"{len(both)} of {len(speakers)} folders or names, such as {both[0]}, have clips in both lists: where each is "
            "one speaker, keep them apart with --group_by folder, or with a pattern of their names"
        )


def _line(clip: Path, target: Path) -> bytes:
    """A clip as the list names it: seen from the list's folder, and never to be taken for a comment."""
    text = os.path.relpath(clip, target.resolve().parent)
    return os.fsencode(f"./{text}\n" if text.startswith(("#", " ")) else f"{text}\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.file_list",
        description="Write the kept clips of the data pipeline as file lists for training and validation (data.train_fileslist).",
        epilog=f"Clips of one group are never in both lists, and new raw files move no clip to the other list. {CODES}",
    )
    parser.add_argument("manifest", type=Path, help="manifest.sqlite, or the folder that holds it")
    parser.add_argument("--output", type=Path, required=True, help="file list for training")
    parser.add_argument("--val", type=Path, help="file list for validation (default: none, all clips are for training)")
    parser.add_argument("--val_share", type=float, default=0.05, help="share of the groups for validation (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the choice of groups for validation (default %(default)s)")
    parser.add_argument(
        "--group_by",
        default="file",
        metavar="GROUPING",
        help="clips that stay together: those of one raw 'file' (default), of one 'folder' of the input (a speaker each), or a regular "
        "expression: those of raw files whose paths have the same text in its first (...)",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COMPARISON",
        help="only clips that meet a condition on the manifest, such as 'confidence>=4'; may be repeated",
    )
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.val_share <= 1:
        raise InputError(f"--val_share {arguments.val_share:g}: give a share from 0 to 1")
    if arguments.val is not None and arguments.val.resolve() == arguments.output.resolve():
        raise InputError("--output and --val name the same file: give two")
    conditions = [read_condition(text) for text in arguments.where]
    split = Split(arguments.val_share, arguments.seed, read_grouping(arguments.group_by))
    with read_manifest(arguments.manifest) as manifest:
        for target in filter(None, (arguments.output, arguments.val)):
            check_target(target)
        sources = write_lists(manifest, arguments.output, arguments.val, split, conditions)
    val = sum(clips for source, clips in sources.items() if arguments.val and split.is_val(source))
    logger.info("%d clips for training%s", sources.total() - val, f", {val} for validation" if arguments.val else "")
    for warning in warnings(sources, split, arguments.val is not None):
        logger.warning("%s", warning)


def main(arguments: list[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "no list was written.")


if __name__ == "__main__":
    sys.exit(main())
