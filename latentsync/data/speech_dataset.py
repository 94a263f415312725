"""`SpeechDataset`: pieces of speech beside the phone and the mouth of every step, for the audio encoder."""

import json
import logging
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.batches import Batch, Turn
from latentsync.data.catalog import Catalog, ClipInfo
from latentsync.data.clip_dataset import ClipDataset, whole
from latentsync.data.findings import sidecar
from latentsync.data.speech_piece import Recording, drawn_piece, fitted, heard, plain_piece, varied
from latentsync.errors import InputError
from latentsync.media.audio import FULL_SCALE
from latentsync.media.files import walk_media

logger = logging.getLogger(__name__)

SHORTEST = 0.5  # s: recordings below this are left out
_NO_PICTURES = 1  # pixels a side of the faces that nobody asks for
_ADVICE = "make recordings with `python -m embedded.talking_heads speech`"


@dataclass(frozen=True)
class SpeechBatch(Batch):
    """Pieces of speech as long as the encoder's context of t steps."""

    mel: Tensor  # float32 b 80 2t: normalised log-mel; zeros where a piece has ended
    phones: Tensor  # int64 b t: what is said, by index; UNLABELLED where a piece has ended
    mouth: Tensor  # float32 b t k: mouth channels; no number where they are unknown


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers in recordings stand for."""

    symbols: tuple[str, ...]  # phones; the first is silence
    channels: tuple[str, ...]  # of the mouth


def open_recordings(folder: Path) -> Catalog:
    """All recordings of a folder and the folders below: .wav files (16 kHz, mono, 16 bit) with their .json beside them.

    Raises InputError where there is none.
    """
    clips, rejected = [], {}
    for path in walk_media(folder, (".wav",)):
        try:
            count = _open_wave(path)[1]
        except InputError as error:
            rejected[path] = str(error)
            continue
        seconds = count / AUDIO_SAMPLE_RATE
        if not sidecar(path).is_file():
            rejected[path] = f"{path} has no {sidecar(path).name} beside it"
        elif seconds < SHORTEST:
            rejected[path] = f"{path} is {seconds:.2f} s long, not {SHORTEST} or more"
        else:
            clips.append(ClipInfo(path, int(seconds * VIDEO_FPS), seconds, mouth=True))
    first = next(iter(rejected.values()), None)
    if not clips:
        raise InputError(f"{folder} holds no recording of speech{f' that can be used ({first})' if first else ''}: {_ADVICE}")
    if rejected:
        logger.warning("%s: %d of %d recordings are left out, such as: %s", folder, len(rejected), len(rejected) + len(clips), first)
    return Catalog(tuple(clips), rejected)


def read_vocabulary(path: Path) -> Vocabulary:
    """The phones and mouth channels that a recording was made with. Raises InputError."""
    return _vocabulary(path, _read_truth(path))


def read_recording(path: Path, vocabulary: Vocabulary) -> Recording:
    """A recording with the truth about it. Raises InputError where it is damaged, or was made with other phones or channels."""
    content = _read_truth(path)
    if _vocabulary(path, content) != vocabulary:
        raise InputError(f"{path} was made with other phones or mouth channels than the other recordings: {_ADVICE} anew")
    samples = np.frombuffer(_open_wave(path, with_samples=True)[0], "<i2").astype(np.float32) / np.float32(FULL_SCALE)
    try:
        index = {symbol: place for place, symbol in enumerate(vocabulary.symbols)}
        recording = Recording(
            samples=samples,
            phones=np.array([index[symbol] for symbol, _, _ in content["said"]["phones"]], np.int64),
            phone_ends=np.array([end for _, _, end in content["said"]["phones"]], np.float64),
            mouth=np.array(content["mouth"]["values"], np.float32),
            rest=np.array(content["mouth"]["rest"], np.float32),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{sidecar(path)} does not tell phones and mouth ({type(error).__name__}): {_ADVICE} anew") from None
    channels = (len(vocabulary.channels),)
    if not len(recording.phones) or recording.mouth.shape[1:] != channels or recording.rest.shape != channels:
        raise InputError(f"{sidecar(path)} tells no phones, or not {channels[0]} mouth channels: {_ADVICE} anew")
    return recording


def _read_truth(path: Path) -> dict:
    try:
        content = json.loads(sidecar(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{sidecar(path)} cannot be read ({type(error).__name__}): {_ADVICE} anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{sidecar(path)} is no truth of a recording: {_ADVICE} anew")
    return content


def _vocabulary(path: Path, content: dict) -> Vocabulary:
    try:
        return Vocabulary(tuple(content["symbols"]), tuple(content["mouth"]["channels"]))
    except (KeyError, TypeError):
        raise InputError(f"{sidecar(path)} does not list its phones (symbols) and mouth channels: {_ADVICE}") from None


def _open_wave(path: Path, with_samples: bool = False) -> tuple[bytes, int]:
    """The samples of a wave file, where they are asked for, and how many there are. Raises InputError for what is not 16 kHz mono."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
            if kind != (AUDIO_SAMPLE_RATE, 1, 2):
                raise InputError(f"{path} is no recording at {AUDIO_SAMPLE_RATE} Hz, mono, 16 bit: {_ADVICE}")
            return file.readframes(file.getnframes()) if with_samples else b"", file.getnframes()
    except (OSError, EOFError, wave.Error) as error:
        raise InputError(f"{path} cannot be read ({str(error) or 'cut short'}): make it again") from None


class SpeechDataset(ClipDataset[SpeechBatch]):
    """Pieces for the audio encoder, as long as its context.

    Args:
        vocabulary: what the recordings are made with.
        context: steps (20 ms) that the encoder hears at once.
        is_varied: put pieces together from several recordings and vary them, for training; a recording as it is otherwise.
    """

    def __init__(self, catalog: Catalog, vocabulary: Vocabulary, *, context: int, seed: int, is_varied: bool) -> None:
        super().__init__(catalog, num_frames=1, resolution=_NO_PICTURES, seed=seed)
        self.vocabulary, self.context, self.is_varied = vocabulary, context, is_varied

    def sample(self, turn: Turn, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> SpeechBatch:
        """See `ClipDataset`."""
        first = read_recording(clip.path, self.vocabulary)
        if self.is_varied:
            piece = drawn_piece(rng, self._recordings(first, rng, problems), self.context)
            mel = varied(rng, heard(piece.samples), self.context)
        else:
            piece = plain_piece(first, self.context)
            mel = heard(piece.samples)
        mel, phones, mouth = fitted(mel, piece, self.context)
        return SpeechBatch(whole(turn.position), whole(turn.clip), problems, mel[None], phones[None], mouth[None])

    def _recordings(self, first: Recording, rng: np.random.Generator, problems: list[str]) -> Iterator[Recording]:
        """The first recording and then, without end, others by chance; the first again in place of one that cannot be read."""
        yield first
        while True:
            path = self.catalog.clips[int(rng.integers(len(self)))].path
            try:
                recording = read_recording(path, self.vocabulary)
            except InputError as error:
                problems.append(f"{error} (another one is heard instead)")
                recording = first
            yield recording
