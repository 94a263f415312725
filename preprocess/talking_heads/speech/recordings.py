"""Speech without pictures: what a clip's person says, with the acoustics of a clip and the truth beside it, many times over."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError, OutputError
from latentsync.media.files import staged, write_json, write_text
from preprocess.talking_heads.clip import WORDS_PER_SECOND, speech_of, write_wave
from preprocess.talking_heads.speech.acoustics import augment
from preprocess.talking_heads.speech.phones import SYMBOLS, to_json
from preprocess.talking_heads.speech.splits import ClipPlan, Split, plan_clip
from preprocess.talking_heads.speech.synthesis import Speech, excerpt, loudness, speak
from preprocess.talking_heads.speech.visemes import CHANNELS, MouthStyle, mouth_channels
from preprocess.talking_heads.traits import stream
from preprocess.talking_heads.truth import VERSION

_ABOUT = "speech.json"  # in the folder: what its recordings have in common


@dataclass(frozen=True)
class Recordings:
    """Recordings of one collection and how they are made."""

    folder: Path
    seed: int
    split: Split
    count: int
    seconds: float
    clean_sound: bool = False  # no room, no noise, no equaliser

    @property
    def frames(self) -> int:
        """Video frames that a recording is long."""
        return round(self.seconds * VIDEO_FPS)

    def path(self, index: int) -> Path:
        """Where recording `index` belongs; its truth has the same name and ends in .json."""
        return self.folder / f"clip_{index:06d}.wav"

    def plan(self, index: int) -> ClipPlan:
        """Who says what in recording `index`: by the splits that rendered clips have."""
        return plan_clip(self.seed, index, self.split, int(self.seconds * WORDS_PER_SECOND) + 2)

    def missing(self) -> Iterator[int]:
        """Recordings that are still to be made. One is there when its .json is, which is written last, and its sound."""
        for index in range(self.count):
            path = self.path(index)
            if not (path.is_file() and path.with_suffix(".json").is_file()):
                yield index

    def make(self, index: int) -> None:
        """Speak and write one recording. Raises InputError where a synthesiser is missing, OutputError where it cannot be written."""
        plan, path, length = self.plan(index), self.path(index), self.frames / VIDEO_FPS
        speech = speech_of(plan, length)
        mouth = mouth_of_nobody(speech, self.frames)  # of the whole speech: the mouth moves towards what is cut off
        spoken = excerpt(speech, 0.0, length)
        samples = spoken.samples if self.clean_sound else augment(spoken.samples, stream(plan.seed, "acoustics"))
        with staged(path) as temporary:
            try:
                write_wave(temporary, samples)
            except OSError as error:
                raise OutputError(f"{path} cannot be written ({(error.strerror or str(error)).lower()}): free some space") from None
        write_text(path.with_suffix(".json"), self._truth(plan, spoken, mouth))

    def _truth(self, plan: ClipPlan, spoken: Speech, mouth: np.ndarray) -> str:
        """The sidecar's text: the keys of a rendered clip's truth as far as there are no pictures, and what the numbers stand for."""
        content = {
            "version": VERSION,
            "fps": VIDEO_FPS,
            "frames": self.frames,
            "plan": {"split": plan.split, "seed": plan.seed},
            "settings": {"seconds": self.seconds, "clean_sound": self.clean_sound},
            "said": {"voice": asdict(spoken.voice), "text": spoken.text, "phones": to_json(spoken.phones)},
            "symbols": list(SYMBOLS),  # all phones there are; the first is silence
            "mouth": {
                "channels": list(CHANNELS),
                "values": _rounded(mouth),
                "rest": _rounded(mouth_channels((), 1, MouthStyle())[0]),
            },
        }
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()) + "\n}\n"


def mouth_of_nobody(speech: Speech, frames: int) -> np.ndarray:
    """Mouth channels (float32 n 11) in the style of no person in particular: who speaks cannot be heard."""
    return mouth_channels(speech.phones, frames, MouthStyle(), loudness(speech))


def _rounded(values: np.ndarray) -> list[float]:
    """Numbers for a text file, to four digits."""
    return np.round(values.astype(np.float64), 4).tolist()


def record_all(recordings: Recordings, workers: int, show_progress: bool = True) -> tuple[int, int]:
    """Make what is missing; the numbers of recordings written and of those that were there.

    Threads are enough: most of the time goes into the synthesisers, which are processes of their own. Raises InputError where the folder
    holds something else, and what the first failing recording raised.
    """
    _open_folder(recordings)
    missing = list(recordings.missing())
    if missing:
        speak("One.", recordings.plan(missing[0]).voice)  # a synthesiser that is missing is found out before any work
    with tqdm(total=len(missing), unit="clip", disable=None if show_progress else True) as bar, ThreadPoolExecutor(workers) as pool:
        queue = iter(missing)
        waiting = {pool.submit(recordings.make, index) for index in itertools.islice(queue, 2 * workers)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    bar.update()
                waiting |= {pool.submit(recordings.make, index) for index in itertools.islice(queue, len(done))}
        finally:
            pool.shutdown(cancel_futures=True)  # what is being spoken takes a fraction of a second
    return len(missing), recordings.count - len(missing)


def _open_folder(recordings: Recordings) -> None:
    """Keep recordings of different settings, and files of others, apart: the folder says what it holds. Raises InputError."""
    about = {key: value for key, value in asdict(recordings).items() if key not in ("folder", "count")}
    place = recordings.folder / _ABOUT
    known: object = about
    if place.is_file():
        with contextlib.suppress(OSError, ValueError):
            known = None
            known = json.loads(place.read_text(encoding="utf-8"))
    elif recordings.folder.is_dir() and os.listdir(recordings.folder):  # noqa: PTH208
        raise InputError(f"{recordings.folder} holds files that were not made by this command: give another --output_dir")
    if known != about:
        raise InputError(f"{recordings.folder} holds other recordings than {about}: give another --output_dir")
    if not place.is_file():
        write_json(place, about)
