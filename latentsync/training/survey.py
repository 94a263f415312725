"""A look at the clips themselves: size, silence, movement, fingerprints, and whether the mouth moves when there is sound."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.frames import read_pieces
from latentsync.errors import InputError
from latentsync.media.audio import AudioSamples
from latentsync.spectrogram import log_mel

LOOK_FRAMES = 100  # frames of a clip that are looked at, from its start
SILENCE_DB = -50.0  # of full scale; a frame whose sound is softer is silent
LAGS = 8  # frames to either side over which sound and movement are compared
GRID = 16  # cells a side of the map of movement
_SIDE = 64  # pixels a side of the pictures that are looked at
_MOUTH_ROWS, _MOUTH_COLUMNS = slice(9, 16), slice(4, 12)  # cells of the lower middle of a face
_INDEPENDENT = 30  # moments of a clip that tell something new, about
_LEAST_FRAMES = 4 * LAGS + 1  # a clip with fewer says nothing about a lag
_NO_MOVEMENT = 0.01  # grey levels, over the whole picture
_STEP_SAMPLES = AUDIO_SAMPLE_RATE // VIDEO_FPS
_SOUND_GRID, _PICTURE_GRID = (8, 17), (8, 9)  # rows, columns: neighbours along a row are compared, one bit each
_SAME_SOUND, _SAME_PICTURE = 7, 10  # bits of 128 and of 64 in which two prints of the same thing may differ
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Look:
    """What one clip shows."""

    path: Path
    width: int
    height: int
    silent: float  # share of frames whose sound is below SILENCE_DB
    movement: float  # mean difference of neighbouring frames around the mouth, grey levels of 255
    sound_print: int  # 128 bits that survive another encoding
    picture_print: int  # 64 bits of the first frame


@dataclass
class Agreement:
    """How movement goes with sound, lag by lag, summed over clips. A peak at lag k means that the sound comes k frames late."""

    clips: int = 0
    cells: np.ndarray = field(default_factory=lambda: np.zeros((2 * LAGS + 1, GRID, GRID)))  # sums of correlations
    mouth: np.ndarray = field(default_factory=lambda: np.zeros(2 * LAGS + 1))
    mouth_squared: np.ndarray = field(default_factory=lambda: np.zeros(2 * LAGS + 1))

    def add(self, cells: np.ndarray, mouth: np.ndarray) -> None:
        """One more clip."""
        self.clips += 1
        self.cells += cells
        self.mouth += mouth
        self.mouth_squared += mouth**2

    def lag(self) -> int:
        """Frames by which the sound of most clips comes late; negative: early."""
        return int(self.mouth.argmax()) - LAGS

    def certainty(self) -> float:
        """The correlation at that lag in units of its standard error over clips; 0 for fewer than 8 clips."""
        if self.clips < 8:
            return 0.0
        best = int(self.mouth.argmax())
        mean = self.mouth[best] / self.clips
        variance = max(float(self.mouth_squared[best] / self.clips - mean**2), 1e-8)
        return float(mean / np.sqrt(variance / self.clips))

    def place(self) -> tuple[float, float]:
        """Where in the picture (x, y from 0 to 1) movement goes best with sound, at whatever lag."""
        _, row, column = np.unravel_index(self.cells.argmax(), self.cells.shape)
        return (float(column) + 0.5) / GRID, (float(row) + 0.5) / GRID

    def place_certainty(self) -> float:
        """The correlation at that place in units of what chance gives; the largest of so many is 4 or 5 by chance alone."""
        return float(self.cells.max() / max(1, self.clips) * np.sqrt(self.clips * _INDEPENDENT))


@dataclass
class Survey:
    """What was seen of some clips."""

    looks: list[Look] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)  # clips that could not be decoded, and why
    agreement: Agreement = field(default_factory=Agreement)


def survey(clips: Sequence[tuple[Path, int]], threads: int, show_progress: bool = False) -> Survey:
    """Look at clips (path, frames); a few are held at a time."""
    seen = Survey()
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as pool:
        bar = tqdm(total=len(clips), desc="looking", unit="clip", disable=None if show_progress else True, leave=False)
        with bar:
            for start in range(0, len(clips), 8 * threads):
                for found in pool.map(lambda clip: _try_look(*clip), clips[start : start + 8 * threads]):
                    bar.update()
                    if isinstance(found, tuple):
                        seen.broken[found[0]] = found[1]
                        continue
                    seen.looks.append(found.look)
                    if found.cells is not None and found.mouth is not None:
                        seen.agreement.add(found.cells, found.mouth)
    return seen


@dataclass(frozen=True)
class _Found:
    look: Look
    cells: np.ndarray | None
    mouth: np.ndarray | None


def _try_look(path: Path, frames: int) -> _Found | tuple[Path, str]:
    try:
        return _look(path, min(frames, LOOK_FRAMES))
    except InputError as error:
        return path, str(error)


def _look(path: Path, frames: int) -> _Found:
    """Look at the first frames of a clip. Raises InputError."""
    grey, height, width = [], 0, 0
    for piece in read_pieces(path, frames):
        height, width = piece.shape[1:3]
        small = (cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in piece.numpy())
        grey += [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in small]
    pictures = np.stack(grey)  # f h w
    with AudioSamples(path) as sound:
        samples = sound[: len(pictures) * _STEP_SAMPLES]
    steps = len(samples) // _STEP_SAMPLES
    if not steps:
        raise InputError(f"{path} holds no sound: make this clip again")
    power = (samples[: steps * _STEP_SAMPLES].reshape(steps, -1) ** 2).mean(1)
    level = 10 * np.log10(power + 1e-10)  # dB of full scale
    cells = np.abs(np.diff(pictures, axis=0)).reshape(-1, GRID, _SIDE // GRID, GRID, _SIDE // GRID).mean((2, 4))  # f-1 16 16
    mouth = cells[:, _MOUTH_ROWS, _MOUTH_COLUMNS].mean((1, 2)) if len(cells) else np.zeros(1)
    look = Look(
        path=path,
        width=width,
        height=height,
        silent=float((level < SILENCE_DB).mean()),
        movement=float(mouth.mean()),
        sound_print=_print(log_mel(samples).numpy(), _SOUND_GRID),
        picture_print=_print(pictures[0], _PICTURE_GRID),
    )
    together = min(len(cells), steps - 1)
    heard = np.maximum(level[1 : together + 1], SILENCE_DB - 20)
    if together + 1 < _LEAST_FRAMES or heard.std() < 1 or cells.mean() < _NO_MOVEMENT:
        return _Found(look, None, None)
    return _Found(look, _correlations(cells[:together], heard), _correlations(mouth[:together], heard))


def _correlations(movement: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Correlation along time of movement (f ...) with the sound level (f) at each lag: (2 LAGS + 1) ..."""
    inner = _standard(movement[LAGS : len(movement) - LAGS])
    lags = [_standard(level[LAGS + lag : len(level) - LAGS + lag]) for lag in range(-LAGS, LAGS + 1)]
    return np.tensordot(np.stack(lags), inner, axes=1) / len(inner)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / (values.std(0) + 1e-6)


def _print(values: np.ndarray, grid: tuple[int, int]) -> int:
    """One bit for each two neighbours in a row of a coarse picture of `values` (h w): which is larger."""
    small = cv2.resize(values.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def near_duplicates(looks: Iterable[Look]) -> list[tuple[Path, Path]]:
    """Pairs (a first one, another one) of clips of the same sound and picture, whatever their encoding; silent clips are left out."""
    buckets: dict[tuple[int, int], list[Look]] = defaultdict(list)
    pairs = []
    for look in looks:
        if look.silent > 0.9:
            continue
        keys = [(place, look.sound_print >> (16 * place) & 0xFFFF) for place in range(8)]  # 8 differing bits at least hit all of them
        for other in (other for key in keys for other in buckets[key]):
            same_sound = (look.sound_print ^ other.sound_print).bit_count() <= _SAME_SOUND
            if same_sound and (look.picture_print ^ other.picture_print).bit_count() <= _SAME_PICTURE:
                pairs.append((other.path, look.path))
                break
        for key in keys:
            buckets[key].append(look)
    return pairs


def exact_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same bytes; only files of equal size are read."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    groups: dict[bytes, list[Path]] = defaultdict(list)
    path = None
    try:
        for path in paths:
            sizes[path.stat().st_size].append(path)
        for path in (path for alike in sizes.values() if len(alike) > 1 for path in alike):
            groups[_digest(path)].append(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read any more ({error.strerror}): ask again when the clips lie still") from None
    return [group for group in groups.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()
