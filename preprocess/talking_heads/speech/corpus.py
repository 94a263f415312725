"""Record speech with known phones and mouths: `python -m preprocess.talking_heads.speech.corpus --output_dir D --clips N --seed S`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from latentsync.command import run_command
from latentsync.errors import InputError
from preprocess.talking_heads.speech.splits import SPLITS

logger = logging.getLogger("preprocess.talking_heads")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.talking_heads.speech.corpus",
        description="Record speech without pictures: clip_000000.wav (16 kHz, mono) and the truth about it (clip_000000.json).",
        epilog="Recordings that are there already are left alone, so the same command goes on where it stopped. The same seed gives the "
        "same samples. Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the recordings; made if it is missing")
    parser.add_argument("--clips", type=int, default=16, help="how many recordings (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a recording (default %(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="no two splits share a voice or a sentence (default train)")
    parser.add_argument("--seed", type=int, default=1, help="the collection: each seed is other people saying other things")
    parser.add_argument("--clean_sound", action="store_true", help="no rooms, noise and microphones: the bare voices")
    parser.add_argument("--workers", type=int, default=0, help="recordings made at once (default: one for each processor)")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bar")
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no recording. Raises InputError."""
    if arguments.clips < 1:
        raise InputError(f"--clips {arguments.clips}: ask for at least one recording")
    if arguments.seed < 0 or arguments.workers < 0:
        raise InputError(f"--seed {arguments.seed} --workers {arguments.workers}: give numbers from 0")
    if not 1 <= arguments.seconds <= 60:
        raise InputError(f"--seconds {arguments.seconds:g}: a recording lasts 1 to 60 seconds")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    check(arguments)
    from preprocess.talking_heads.speech.recordings import Recordings, record_all

    recordings = Recordings(
        folder=arguments.output_dir,
        seed=arguments.seed,
        split=arguments.split,
        count=arguments.clips,
        seconds=arguments.seconds,
        clean_sound=arguments.clean_sound,
    )
    written, present = record_all(recordings, arguments.workers or os.cpu_count() or 1, show_progress=not arguments.quiet)
    logger.info("%d recordings written to %s, %d were there already", written, arguments.output_dir, present)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "preprocess", "the recordings that were finished are whole.", quiet=parsed.quiet)


if __name__ == "__main__":
    sys.exit(main())
