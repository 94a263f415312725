"""Shards as ordinary clips of aligned faces: `python -m preprocess.talking_heads.shards.export --shards DIR --output_dir D`."""

import argparse
import itertools
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from latentsync.command import run_command
from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.encoding import CODECS
from latentsync.media.files import write_json, write_text
from latentsync.media.sink import AudioTrack, VideoSink
from preprocess.talking_heads.clip import write_wave
from preprocess.talking_heads.shards.format import Collection, Shard, StoredClip, Take, read_collection
from preprocess.talking_heads.speech import phones
from preprocess.talking_heads.speech.splits import SPLITS
from preprocess.talking_heads.speech.viseme_table import CHANNELS
from preprocess.talking_heads.truth import Truth, dump_truth

logger = logging.getLogger("preprocess.talking_heads.shards")

CRF = 12  # quality of the video, x264's scale: faces of 128 pixels keep some 40 dB


class _StoppedError(Exception):
    """The export ends before this clip was whole."""


@dataclass(frozen=True)
class Task:
    """One clip of a shard, as the file that it becomes."""

    shard: Path
    number: int
    kind: int  # 0: the clip itself, 1: its twin
    path: Path


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.talking_heads.shards.export",
        description="Write the clips of shards as ordinary training clips: videos of aligned faces with their sound, and the truth beside.",
        epilog="Clips that are there already are left alone, so the same command goes on where it stopped, and takes up shards that were "
        "rendered since. Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    parser.add_argument("--shards", type=Path, required=True, metavar="DIR", help="folder that holds the shards")
    parser.add_argument("--collection", metavar="NAME", help="which collection of the folder, such as heads-s1-train-256")
    parser.add_argument("--split", choices=SPLITS, help="which collection of the folder, by its split")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the clips; made if it is missing")
    parser.add_argument("--crf", type=int, default=CRF, help="quality of the video, lower is better (default %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="clips at a time (default: one for each processor)")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bar")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says. Raises InputError, OutputError."""
    if not 0 <= arguments.crf <= CODECS["h264"].crf_max:
        raise InputError(f"--crf {arguments.crf}: give a number from 0 (best) to {CODECS['h264'].crf_max}")
    if arguments.workers < 0:
        raise InputError(f"--workers {arguments.workers}: give a number from 0 on")
    collection = choose_collection(arguments.shards, arguments.collection, arguments.split)
    shards = shard_files(arguments.shards, collection)
    _open_folder(arguments.output_dir, collection, arguments.crf)
    present = sum(_is_there(task) for task in tasks(collection, shards, arguments.output_dir))
    total = len(shards) * collection.clips * collection.takes
    missing = (task for task in tasks(collection, shards, arguments.output_dir) if not _is_there(task))
    with tqdm(total=total - present, unit="clip", disable=True if arguments.quiet else None) as bar:
        _work(missing, collection, arguments.crf, arguments.workers or os.cpu_count() or 1, bar)
    logger.info("%d clips of %s written to %s, %d were there already", total - present, collection.name, arguments.output_dir, present)


def choose_collection(folder: Path, name: str | None, split: str | None) -> Collection:
    """The one collection of a folder that fits a name or a split. Raises InputError when none or several do."""
    if name is None and split is not None and folder.is_dir():
        found = [path.stem for path in sorted(folder.glob("heads-*.json")) if read_collection(folder, path.stem).split == split]
        if len(found) != 1:
            names = f"several collections for --split {split} ({', '.join(found)})" if found else f"no collection for --split {split}"
            raise InputError(f"{folder} holds {names}: name one with --collection")
        name = found[0]
    collection = read_collection(folder, name)
    if split is not None and collection.split != split:
        raise InputError(f"the collection {collection.name} is for {collection.split}, not {split}: leave --split out")
    if collection.channels != CHANNELS:
        raise InputError(f"{folder / collection.name}.json names other mouth channels than this version's: render the shards again")
    return collection


def shard_files(folder: Path, collection: Collection) -> list[Path]:
    """The shards that are there now, in order. Raises InputError when there is none."""
    wanted = re.compile(rf"{re.escape(collection.name)}-\d{{6}}\.npz")
    found = sorted(path for path in folder.iterdir() if wanted.fullmatch(path.name))
    if not found:
        raise InputError(f"{folder} holds no shard of {collection.name} yet: render some with python -m preprocess.talking_heads.shards")
    return found


def tasks(collection: Collection, shards: Sequence[Path], folder: Path) -> Iterator[Task]:
    """Every clip of the shards, twins after their clips."""
    for shard, number, kind in itertools.product(shards, range(collection.clips), range(collection.takes)):
        yield Task(shard, number, kind, folder / f"{shard.stem}_{number:02d}{'_other' if kind else ''}.mp4")


def _is_there(task: Task) -> bool:
    """Whether a clip is finished: its truth is written last."""
    return task.path.is_file() and task.path.with_suffix(".json").is_file()


def _open_folder(folder: Path, collection: Collection, crf: int) -> None:
    """Let the folder say how its clips are made, so that clips made otherwise are not mixed in. Raises InputError, OutputError."""
    place = folder / f"{collection.name}.export.json"
    about = json.loads(json.dumps(asdict(collection) | {"crf": crf}))
    if not place.exists():
        write_json(place, about)
        return
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise InputError(f"{place} is no description of exported clips: give another --output_dir")
    for key, value in about.items():
        if known.get(key) != value:
            raise InputError(
                f"{folder} holds clips of {collection.name} with {key} {known.get(key)}, not {value}: give another --output_dir"
            )


def _work(missing: Iterator[Task], collection: Collection, crf: int, workers: int, bar: tqdm) -> None:
    """Write clips on threads (decoding and encoding leave the interpreter free); one failure, or an interruption, ends them all."""
    stop = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="export") as pool:
        try:
            waiting = {pool.submit(write_task, task, collection, crf, stop) for task in itertools.islice(missing, 2 * workers)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    bar.update()
                waiting |= {pool.submit(write_task, task, collection, crf, stop) for task in itertools.islice(missing, len(done))}
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def write_task(task: Task, collection: Collection, crf: int, stop: threading.Event) -> None:
    """Write one clip and, after it, its truth; neither where `stop` is set before the end. Raises InputError, OutputError."""
    if stop.is_set():
        return
    with Shard(task.shard) as shard:
        if len(shard) <= task.number:
            raise InputError(f"{task.shard} holds {len(shard)} clips, not {collection.clips}: delete it and render it again")
        clip = shard.clip(task.number)
    if len(clip.takes) <= task.kind:
        raise InputError(f"{task.shard} holds no twins, as its collection says it does: delete it and render it again")
    take = clip.takes[task.kind]
    try:
        write_video(task.path, take, collection.resolution, crf, stop)
    except _StoppedError:
        return
    write_text(task.path.with_suffix(".json"), dump_truth(truth_of(clip, task.kind, collection, crf)))


def write_video(path: Path, take: Take, resolution: int, crf: int, stop: threading.Event) -> None:
    """A take's faces and sound as a video file."""
    with TemporaryDirectory(prefix="latentsync-") as folder:
        sound = Path(folder) / "speech.wav"
        write_wave(sound, take.samples.astype(np.float32) / 32767)
        track = AudioTrack(sound, len(take) / VIDEO_FPS)
        with VideoSink(path, resolution, resolution, VIDEO_FPS, audio=track, crf=crf) as sink:
            for face in take.faces(range(len(take))):
                if stop.is_set():
                    raise _StoppedError
                sink.write(face)


def truth_of(clip: StoredClip, kind: int, collection: Collection, crf: int) -> Truth:
    """What a shard knows of a clip, as the truth beside a rendered one; landmarks are those of the face, head motion is not stored."""
    take, about = clip.takes[kind], clip.about
    own, said = about["said"][0], about["said"][kind]
    symbols = [collection.symbols[index] for index in take.phones]
    starts = [0.0, *take.phone_ends[:-1].tolist()]
    spoken = [phones.Phone(*entry) for entry in zip(symbols, starts, take.phone_ends.tolist(), strict=True)]
    plan: dict[str, Any] = {key: about[key] for key in ("split", "identity")} | own | {"seed": about["seed"]}
    return Truth(
        plan=plan,
        said={**said, "phones": phones.to_json(spoken)},
        settings={"width": collection.resolution, "height": collection.resolution, "clean_sound": collection.clean_sound, "crf": crf},
        mouth=take.mouth,
        motion={},
        landmarks=[np.round(points.astype(np.float64) + 0.5, 2) for points in take.landmarks],  # 0 = outer edge of the first pixel
        lip_gap=np.round(take.lip_gap.astype(np.float64), 4).tolist(),
        lip_width=np.round(take.lip_width.astype(np.float64), 4).tolist(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(
        lambda: run(parsed), "preprocess", "the clips in work were not written, those before them are whole.", quiet=parsed.quiet
    )


if __name__ == "__main__":
    sys.exit(main())
