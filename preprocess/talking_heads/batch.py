"""Many clips: which are to be rendered, in several processes, going on where an earlier run stopped."""

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
from tqdm import tqdm

from latentsync.command import INTERRUPTED
from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError
from latentsync.media.files import write_json
from preprocess.talking_heads.clip import WORDS_PER_SECOND, Clip, ClipSettings, speech_of
from preprocess.talking_heads.speech.phones import to_json
from preprocess.talking_heads.speech.splits import ClipPlan, Split, other_text, plan_clip
from preprocess.talking_heads.speech.synthesis import speak
from preprocess.talking_heads.truth import read_speech, read_truth

_ABOUT = "heads.json"  # in the folder: what its clips have in common


@dataclass(frozen=True)
class Batch:
    """Clips of one collection and how they are made."""

    folder: Path
    seed: int
    split: Split
    indices: range
    seconds: float
    language: str
    settings: ClipSettings
    pairs: bool = False
    redrive: Path | None = None


@dataclass(frozen=True)
class Task:
    """One file to be rendered; small enough to be sent to a process."""

    path: Path
    plan: ClipPlan
    seconds: float
    settings: ClipSettings
    other_words: int = 0  # not 0: the clip says at least so many other words of the same split
    language: str = "en"
    redrive: Path | None = None

    def run(self) -> Path:
        """Render it."""
        own, frames = speech_of(self.plan, self.seconds), round(self.seconds * VIDEO_FPS)
        speech = own
        if self.redrive is not None:
            speech, frames = read_speech(self.redrive), None
        elif self.other_words:
            text = other_text(self.plan, self.other_words, self.language)
            speech = speech_of(replace(self.plan, text=text), self.seconds)
        return Clip(self.plan, speech, self.settings, own, frames).write(self.path)


def render_batch(batch: Batch, workers: int, show_progress: bool = True) -> tuple[int, int]:
    """Render what is missing; the numbers of clips written and of those that were there.

    A clip counts as there when its .json is, which is written last, and its video. Raises InputError where the folder holds clips made
    otherwise, and what the first failing clip raised.
    """
    _open_folder(batch)
    wanted, missing = sum(1 for _ in _files(batch)), sum(1 for _ in _missing(batch))
    if missing:
        speak("One.", next(_missing(batch)).plan.voice)  # a synthesiser that is missing is found out before any work
    with tqdm(total=missing, unit="clip", disable=None if show_progress else True) as bar:
        if min(workers, missing) <= 1:
            for task in _missing(batch):
                task.run()
                bar.update()
        else:
            _in_processes(_missing(batch), min(workers, missing), bar)
    return missing, wanted - missing


def _files(batch: Batch) -> Iterator[tuple[int, Path, bool]]:
    """Every file that a batch consists of: index, path, whether it is the second of a pair."""
    for index in batch.indices:
        name = f"clip_{index:06d}"
        if batch.redrive is not None:
            yield index, batch.folder / f"{name}_redriven.mp4", False
            continue
        yield index, batch.folder / f"{name}.mp4", False
        if batch.pairs:
            yield index, batch.folder / f"{name}_other.mp4", True


def _missing(batch: Batch) -> Iterator[Task]:
    """The files that are still to be rendered."""
    words = int(batch.seconds * WORDS_PER_SECOND) + 2
    for index, path, other in _files(batch):
        if path.is_file() and path.with_suffix(".json").is_file():
            continue
        plan = plan_clip(batch.seed, index, batch.split, words, batch.language)
        yield Task(path, plan, batch.seconds, batch.settings, words if other else 0, batch.language, batch.redrive)


def _open_folder(batch: Batch) -> None:
    """Keep clips of different settings, and files of others, apart: the folder says what its clips are. Raises InputError."""
    about = {"seed": batch.seed, "split": batch.split, "seconds": batch.seconds, "language": batch.language, **asdict(batch.settings)}
    place = batch.folder / _ABOUT
    if place.is_file():
        known = _read_about(place)
        for key, value in about.items():
            if known.get(key) != value:
                raise InputError(f"{batch.folder} holds clips with {key} {known.get(key)}, not {value}: give another --output_dir")
    else:
        foreign = next((path for _, path, _ in _files(batch) if path.exists() or path.with_suffix(".json").exists()), None)
        if foreign is not None:
            raise InputError(f"{foreign} was not made by this command and would be overwritten: give another --output_dir")
    if batch.redrive is not None:
        _check_redriven(batch, batch.redrive)
    if not place.is_file():
        write_json(place, about)


def _read_about(place: Path) -> dict[str, object]:
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise InputError(f"{place} is no description of rendered clips: give another --output_dir")
    return known


def _check_redriven(batch: Batch, audio: Path) -> None:
    """Refuse to take clips that say something else for clips that say `audio`. Raises InputError."""
    phones = to_json(read_speech(audio).phones)
    for _, path, _ in _files(batch):
        beside = path.with_suffix(".json")
        if beside.is_file() and read_truth(beside)["said"]["phones"] != phones:
            raise InputError(f"{path} says something else than {audio}: give another --output_dir")


def _in_processes(missing: Iterator[Task], workers: int, bar: tqdm) -> None:
    """Run tasks in processes, a few ahead of the work; one failure, or an interruption, ends them all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_heed_the_parent) as pool:
        try:
            waiting = {pool.submit(_work, task) for task in itertools.islice(missing, 2 * workers)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    bar.update()
                waiting |= {pool.submit(_work, task) for task in itertools.islice(missing, len(done))}
        except BrokenProcessPool:
            raise LatentSyncError("a rendering process was ended from outside: is there memory for all? Try fewer --workers") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _work(task: Task) -> Path:
    """One task in a process of its own, which an interruption ends: it would go on with the next task otherwise."""
    try:
        return task.run()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the clip in work has been cleaned up on the way here


def _heed_the_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides, and its word ends a clip without leaving a stump."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cv2.setNumThreads(1)
