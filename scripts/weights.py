"""The weight files of this project: `python -m scripts.weights list|check|download|licences`."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from latentsync.weights import FLAT_UNET, VERSIONS, WEIGHTS, WeightFile, find_weights
from scripts.download_weights import add_arguments, add_folder_argument
from scripts.download_weights import run as download

MEGABYTE = 1e6
ASSUMED = "assumed: the file does not say its version"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.weights", description="What weight files there are, and whether they are right."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "list": "each file: whether it is there, its size, where it was found or belongs, what it is for",
        "check": "read each file that is there: its checksum where one is known, and whether it fits its network; "
        "exit code 1 where one does not, or a named one is not there",
        "licences": "what the authors of each file allow, and where it comes from",
    }
    for name, words in about.items():
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(WEIGHTS)}")
        add_folder_argument(command)
    words = "fetch the files that are missing, or say where to get them (the same as scripts.download_weights)"
    add_arguments(commands.add_parser("download", help=words, description=words))
    parsed = parser.parse_args(arguments)
    unknown = [name for name in getattr(parsed, "names", None) or () if name not in WEIGHTS]
    if unknown:
        parser.error(f"there is no weight file {unknown[0]!r}: the files are {', '.join(WEIGHTS)}")
    return parsed


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def list_files(files: Mapping[str, WeightFile], checkpoints: Path) -> str:
    """The table of what is there."""
    rows = [("name", "there", "size", "place", "for")]
    for name, weight in files.items():
        path = find_weights(name, checkpoints)
        there = "yes" if path else "no" if weight.required else "no (optional)"
        size = f"{path.stat().st_size / MEGABYTE:.1f} MB" if path else "-"
        note = f" ({ASSUMED})" if path == checkpoints / FLAT_UNET and name == f"unet-{VERSIONS[0]}" else ""
        rows.append((name, there, size, str(path or checkpoints / weight.path), weight.purpose + note))
    return in_columns(rows)


def list_licences(files: Mapping[str, WeightFile]) -> str:
    """What may be done with each file."""
    return in_columns([("name", "licence", "origin"), *((name, weight.licence, weight.origin) for name, weight in files.items())])


def check_files(files: Mapping[str, WeightFile], checkpoints: Path, wanted: Sequence[str]) -> int:
    """Say of each file whether it is right; the exit code."""
    from scripts.weight_checks import LOADERS, check_file  # imports all networks

    bad = 0
    for name, weight in files.items():
        path = find_weights(name, checkpoints)
        missing = path is None
        problem = "" if path is None else check_file(name, path)
        bad += bool(problem) or (missing and name in wanted)
        known = "" if weight.sha256 else ", no checksum is known"
        loads = "fits its network" if name in LOADERS else "can be read"
        print(f"{name}: {'missing' if missing else problem or f'right ({loads}{known})'}", flush=True)
    return 1 if bad else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parsed = parse_arguments(arguments)
    if parsed.command == "download":
        return download(parsed)
    files = {name: WEIGHTS[name] for name in parsed.names or WEIGHTS}
    if parsed.command == "check":
        return check_files(files, parsed.checkpoints, parsed.names)
    print(list_files(files, parsed.checkpoints) if parsed.command == "list" else list_licences(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
