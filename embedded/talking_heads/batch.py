"""Many files of one folder: written in several processes, resuming where an earlier run stopped."""

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import torch
from tqdm import tqdm

from embedded.talking_heads.aligned import write_aligned
from embedded.talking_heads.clip import plan_of, write_pictures
from embedded.talking_heads.speech.synthesis import speak
from embedded.talking_heads.speech.voices import Split
from latentsync.cli import INTERRUPTED
from latentsync.errors import InputError, LatentSyncError
from latentsync.media.files import read_record, write_json


@dataclass(frozen=True)
class HeadCollection:
    """What all files of a collection have in common; a number adds the rest."""

    kind: Literal["clips", "aligned"]
    seed: int = 1
    split: Split = "train"
    seconds: float = 4.0
    size: int = 512  # pixels a side
    is_pair: bool = False  # each clip comes with another: same person, motion and light, other words
    is_clean: bool = False  # no rooms, noise and microphones
    crf: int = 16

    @property
    def name(self) -> str:
        """How the names of its files begin: aligned clips of several collections may share a folder."""
        return f"heads-s{self.seed}-{self.split}-{self.size}" if self.kind == "aligned" else "clip"

    def paths(self, folder: Path, index: int) -> list[Path]:
        """The files of a number; the labels of each lie beside it and end in .json."""
        stem = f"{self.name}{'-' if self.kind == 'aligned' else '_'}{index:06d}"
        return [folder / f"{stem}.mp4", *([folder / f"{stem}_other.mp4"] if self.is_pair else [])]

    def is_there(self, folder: Path, index: int) -> bool:
        """Whether the files of a number are finished: labels are written last."""
        return all(path.is_file() and path.with_suffix(".json").is_file() for path in self.paths(folder, index))

    def write(self, folder: Path, index: int) -> None:
        """Render one number: a pure function of collection and number. Raises InputError where a synthesiser is missing."""
        plan, paths = plan_of(self.seed, index, self.split, self.seconds), self.paths(folder, index)
        if self.kind == "aligned":
            write_aligned(paths, plan, self.seconds, self.size)
        else:
            write_pictures(paths, plan, self.seconds, self.size, self.is_clean, self.crf)


def write_all(collection: HeadCollection, folder: Path, indices: range, workers: int, show_progress: bool = True) -> int:
    """Write what is missing; how many numbers that were.

    Raises InputError where the folder holds files of other settings, and what the first failing number raised.
    """
    _open_folder(collection, folder, indices)
    missing = [index for index in indices if not collection.is_there(folder, index)]
    if missing:  # a synthesiser that is missing is found out before any work
        speak("One.", plan_of(collection.seed, missing[0], collection.split, collection.seconds).voice)
    with tqdm(total=len(missing), unit="clip", disable=None if show_progress else True) as bar:
        if min(workers, len(missing)) <= 1:
            for index in missing:
                collection.write(folder, index)
                bar.update()
        else:
            _in_processes(collection, folder, missing, min(workers, len(missing)), bar)
    return len(missing)


def _open_folder(collection: HeadCollection, folder: Path, indices: range) -> None:
    """Keep files of different settings, and those of others, apart: the folder says what a collection is. Raises InputError."""
    record, about = folder / f"{collection.name}.settings.json", asdict(collection)
    if record.is_file():
        known = read_record(record)
        if known != about:
            raise InputError(f"{folder} holds files of other settings ({record.name}) than {about}: give another --output_dir")
        return
    paths = (path for index in indices for path in collection.paths(folder, index))
    foreign = next((path for path in paths if path.exists() or path.with_suffix(".json").exists()), None)
    if foreign is not None:
        raise InputError(f"{foreign} was not written by this command and would be overwritten: give another --output_dir")
    write_json(record, about)


def _in_processes(collection: HeadCollection, folder: Path, missing: list[int], workers: int, bar: tqdm) -> None:
    """Write numbers in processes; one failure, or an interruption, ends them all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker) as pool:
        try:
            for future in as_completed([pool.submit(_work, collection, folder, index) for index in missing]):
                future.result()
                bar.update()
        except BrokenProcessPool:
            raise LatentSyncError("a rendering process was ended from outside: is there memory for all? Try fewer --workers") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _work(collection: HeadCollection, folder: Path, index: int) -> None:
    """One number in a process of its own, which an interruption ends: it would go on with the next one otherwise."""
    try:
        collection.write(folder, index)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the file in work has been cleaned up on the way here


def _prepare_worker() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides, and terminates workers such that they clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
