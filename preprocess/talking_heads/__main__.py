"""Render talking heads with known truth: `python -m preprocess.talking_heads --output_dir D --clips N --seed S`."""

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
        prog="python -m preprocess.talking_heads",
        description="Render talking heads: video with sound (clip_000000.mp4) and the truth about it (clip_000000.json).",
        epilog="Clips of the same settings that are there already are left alone, so the same command goes on where it stopped. The same "
        "seed gives the same frames. Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the clips; made if it is missing")
    parser.add_argument("--clips", type=int, default=16, help="how many clips (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the collection: each seed is other people saying other things")
    parser.add_argument("--first", type=int, default=0, help="number of the first clip (default %(default)s)")
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="no two splits share a person, a voice or a sentence (default train)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip (default %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="height of the picture in pixels (default %(default)s)")
    parser.add_argument("--width", type=int, help="width of the picture in pixels (default: the height)")
    parser.add_argument("--language", default="en", help="what is spoken: en, de, es or fr (default %(default)s)")
    parser.add_argument("--clean_sound", action="store_true", help="no rooms, noise and microphones: the bare voices")
    parser.add_argument("--gestures", action="store_true", help="nods and brows stress the words")
    parser.add_argument("--crf", type=int, default=16, help="quality of the video, lower is better (default %(default)s)")
    parser.add_argument(
        "--pairs", action="store_true", help="render each clip a second time (clip_000000_other.mp4): same motion and light, other words"
    )
    parser.add_argument(
        "--redrive",
        type=Path,
        metavar="AUDIO",
        help="let the people of these clips say AUDIO instead: a rendered clip, or sound with a clip's .json beside it "
        "(writes clip_000000_redriven.mp4, as long as AUDIO)",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each processor)")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bar")
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no clip, and files that are not there. Raises InputError."""
    if arguments.clips < 1 or arguments.first < 0:
        raise InputError(f"--clips {arguments.clips} --first {arguments.first}: ask for at least one clip, counted from 0")
    if arguments.seed < 0 or arguments.workers < 0:
        raise InputError(f"--seed {arguments.seed} --workers {arguments.workers}: give numbers from 0")
    if not 0.2 <= arguments.seconds <= 600:
        raise InputError(f"--seconds {arguments.seconds:g}: a clip lasts 0.2 to 600 seconds")
    for name, value in (("--size", arguments.size), ("--width", arguments.width or arguments.size)):
        if not 32 <= value <= 4096 or value % 2:
            raise InputError(f"{name} {value}: give an even number of pixels from 32 to 4096")
    if not 0.4 <= (arguments.width or arguments.size) / arguments.size <= 4:
        raise InputError(f"--width {arguments.width} --size {arguments.size}: a picture is 0.4 to 4 times as wide as high")
    if not 0 <= arguments.crf <= 51:
        raise InputError(f"--crf {arguments.crf}: give a number from 0 to 51")
    if arguments.redrive is not None and arguments.pairs:
        raise InputError("--redrive and --pairs: choose one, both render the clip with other words")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    check(arguments)
    from preprocess.talking_heads.batch import Batch, render_batch
    from preprocess.talking_heads.clip import ClipSettings

    width = arguments.width or arguments.size
    settings = ClipSettings(width, arguments.size, arguments.clean_sound, arguments.gestures, arguments.crf)
    batch = Batch(
        folder=arguments.output_dir,
        seed=arguments.seed,
        split=arguments.split,
        indices=range(arguments.first, arguments.first + arguments.clips),
        seconds=arguments.seconds,
        language=arguments.language,
        settings=settings,
        pairs=arguments.pairs,
        redrive=arguments.redrive,
    )
    written, present = render_batch(batch, arguments.workers or os.cpu_count() or 1, show_progress=not arguments.quiet)
    logger.info("%d clips written to %s, %d were there already", written, arguments.output_dir, present)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(
        lambda: run(parsed), "preprocess", "the clips in work were not written, those before them are whole.", quiet=parsed.quiet
    )


if __name__ == "__main__":
    sys.exit(main())
