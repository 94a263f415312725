"""Fill a folder with shards of training clips: `python -m preprocess.talking_heads.shards --output_dir D --shards N --seed S`."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from latentsync.command import run_command
from latentsync.errors import InputError
from preprocess.talking_heads.speech.splits import SPLITS

if TYPE_CHECKING:
    from preprocess.talking_heads.shards.format import Collection

logger = logging.getLogger("preprocess.talking_heads.shards")

_POLL = 0.3  # s


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.talking_heads.shards",
        description="Render talking heads as training clips: aligned faces, sound, log-mel and the truth, in shards that training streams.",
        epilog="Start the same command on as many machines as share the folder: each shard is rendered once. The same command goes on "
        "where it stopped. Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the shards; made if it is missing")
    parser.add_argument("--shards", type=int, default=16, help="how many shards (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first shard (default %(default)s)")
    parser.add_argument("--clips_per_shard", type=int, default=8, help="clips in a shard (default %(default)s)")
    parser.add_argument("--resolution", type=int, default=256, help="pixels a side of an aligned face (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the collection: each seed is other people saying other things")
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="no two splits share a person, a voice or a sentence (default train)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip (default %(default)s)")
    parser.add_argument("--language", default="en", help="what is spoken: en, de, es or fr (default %(default)s)")
    parser.add_argument("--clean_sound", action="store_true", help="no rooms, noise and microphones: the bare voices")
    parser.add_argument("--pairs", action="store_true", help="each clip has a twin: same person, motion and light, other words")
    parser.add_argument(
        "--placement", choices=("truth", "detector"), default="truth", help="faces cut by the truth, or as the offline detector would err"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one for each processor)")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bar")
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that make no shard. Raises InputError."""
    if arguments.shards < 1 or arguments.first < 0:
        raise InputError(f"--shards {arguments.shards} --first {arguments.first}: ask for at least one shard, counted from 0")
    if not 1 <= arguments.clips_per_shard <= 1000:
        raise InputError(f"--clips_per_shard {arguments.clips_per_shard}: a shard holds 1 to 1000 clips")
    if not 32 <= arguments.resolution <= 1024 or arguments.resolution % 8:
        raise InputError(f"--resolution {arguments.resolution}: give a multiple of 8 from 32 to 1024")
    if not 0.2 <= arguments.seconds <= 60:
        raise InputError(f"--seconds {arguments.seconds:g}: a training clip lasts 0.2 to 60 seconds")
    if arguments.seed < 0 or arguments.workers < 0:
        raise InputError(f"--seed {arguments.seed} --workers {arguments.workers}: give numbers from 0 on")


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says; the exit code."""
    check(arguments)
    from latentsync.faces.mask import fixed_mask
    from preprocess.talking_heads.shards.crops import Order, plan_of, speeches_of
    from preprocess.talking_heads.shards.format import write_collection

    order = Order(
        seed=arguments.seed,
        split=arguments.split,
        resolution=arguments.resolution,
        clips=arguments.clips_per_shard,
        seconds=arguments.seconds,
        pairs=arguments.pairs,
        language=arguments.language,
        clean_sound=arguments.clean_sound,
        placement=arguments.placement,
    )
    collection, folder = order.collection(), arguments.output_dir
    wanted = range(arguments.first, arguments.first + arguments.shards)
    missing = [index for index in wanted if not collection.shard_path(folder, index).is_file()]
    if missing:
        speeches_of(plan_of(collection, missing[0], 0), collection)  # a synthesiser that is missing is found out before any work
    write_collection(folder, collection, fixed_mask(collection.resolution).numpy())
    written = _fill(folder, collection, missing, arguments.workers or os.cpu_count() or 1, not arguments.quiet)
    others = len(missing) - written
    logger.info("%d shards written to %s, %d by others, %d were there already", written, folder, others, len(wanted) - len(missing))


def _fill(folder: Path, collection: "Collection", missing: list[int], workers: int, show_progress: bool) -> int:
    """Render shards in processes until all are there; how many were written by them. Raises what the first failing one raised."""
    from preprocess.talking_heads.shards.crops import make_clip
    from preprocess.talking_heads.shards.fill import Renderer

    renderers = [Renderer(folder, collection, missing, make_clip) for _ in range(min(workers, len(missing)))]
    written = 0
    try:
        with tqdm(total=len(missing), unit="shard", disable=None if show_progress else True) as bar:
            while any(renderer.is_running() for renderer in renderers):
                time.sleep(_POLL)
                written += sum(len(renderer.written()) for renderer in renderers)
                bar.update(sum(collection.shard_path(folder, index).is_file() for index in missing) - bar.n)
        return written + sum(len(renderer.written()) for renderer in renderers)
    finally:
        for renderer in renderers:
            renderer.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(
        lambda: run(parsed), "preprocess", "the shards in work were not written, those before them are whole.", quiet=parsed.quiet
    )


if __name__ == "__main__":
    sys.exit(main())
