"""Many clips: which are to be rendered, in several processes, going on where an earlier run stopped."""

import itertools
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from latentsync.constants import VIDEO_FPS
from preprocess.talking_heads.clip import Clip, ClipSettings, speech_of
from preprocess.talking_heads.speech.sentences import draw_text
from preprocess.talking_heads.speech.splits import ClipPlan, Split, plan_clip, split_of_topic
from preprocess.talking_heads.speech.synthesis import speak
from preprocess.talking_heads.traits import stream
from preprocess.talking_heads.truth import read_speech

_WORDS_PER_SECOND = 3.6  # more than anybody says, so that a clip is full of speech


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
        if self.redrive is not None:
            speech, frames = read_speech(self.redrive), None
        else:
            speech = speech_of(replace(self.plan, text=self._other_text()), self.seconds) if self.other_words else own
        return Clip(self.plan, speech, self.settings, own, frames).write(self.path)

    def _other_text(self) -> str:
        rng = stream(self.plan.seed, "other words")
        return draw_text(rng, self.other_words, lambda topic: split_of_topic(topic) == self.plan.split, self.language)


def tasks(batch: Batch) -> Iterator[Task]:
    """Every file that a batch consists of."""
    words = int(batch.seconds * _WORDS_PER_SECOND) + 2
    for index in batch.indices:
        plan = plan_clip(batch.seed, index, batch.split, words, batch.language)
        name = f"clip_{index:06d}"
        if batch.redrive is not None:
            yield Task(batch.folder / f"{name}_redriven.mp4", plan, batch.seconds, batch.settings, redrive=batch.redrive)
            continue
        yield Task(batch.folder / f"{name}.mp4", plan, batch.seconds, batch.settings)
        if batch.pairs:
            yield Task(batch.folder / f"{name}_other.mp4", plan, batch.seconds, batch.settings, words, batch.language)


def render_batch(batch: Batch, workers: int, show_progress: bool = True) -> tuple[int, int]:
    """Render what is missing; the numbers of clips written and of those that were there.

    A clip counts as there when its .json is, which is written last. Raises what the first failing clip raised.
    """
    wanted = len(batch.indices) * (2 if batch.pairs and batch.redrive is None else 1)
    missing = sum(1 for _ in _missing(batch))
    if missing:
        _probe(next(_missing(batch)), batch.redrive)
    with tqdm(total=missing, unit="clip", disable=None if show_progress else True) as bar:
        if min(workers, missing) <= 1:
            for task in _missing(batch):
                task.run()
                bar.update()
        else:
            _in_processes(_missing(batch), min(workers, missing), bar)
    return missing, wanted - missing


def _missing(batch: Batch) -> Iterator[Task]:
    return (task for task in tasks(batch) if not task.path.with_suffix(".json").is_file())


def _probe(task: Task, redrive: Path | None) -> None:
    """Find out before any work whether the synthesiser and the speech to be redriven are there. Raises InputError."""
    if redrive is not None:
        read_speech(redrive)
    speak("One.", task.plan.voice)


def _in_processes(missing: Iterator[Task], workers: int, bar: tqdm) -> None:
    """Run tasks in processes, a few ahead of the work; one failure, or an interruption, ends them all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_heed_the_parent) as pool:
        try:
            waiting = {pool.submit(task.run) for task in itertools.islice(missing, 2 * workers)}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    bar.update()
                waiting |= {pool.submit(task.run) for task in itertools.islice(missing, len(done))}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _heed_the_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides, and its word ends a clip without leaving a stump."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
