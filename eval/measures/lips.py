"""Measures of where lips are: "lmd", how far they are from those of the source, and "silence", how far open without a sound."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from eval.measures.measure import Case, Chunk, Column, Numbers, Tally
from eval.measures.mouth_points import PointFinder
from eval.measures.pictures import RECONSTRUCTION_ALONE, NothingTally, require_faces
from latentsync.constants import AUDIO_SAMPLE_RATE, TEMPLATE_RESOLUTION, VIDEO_FPS
from latentsync.media.audio import FULL_SCALE, SILENCE, AudioSamples
from latentsync.models.mouth_reader import lip_gaps

SAMPLES = AUDIO_SAMPLE_RATE // VIDEO_FPS  # of one frame
LOUD = 95  # percentile of the levels of frames that a sound's level is
SPEECH_DB, SILENCE_DB = -15.0, -30.0  # levels of frames against it: of speech from here on, of silence up to here
MARGIN = 3  # frames: lips move before a sound and after it, so silence begins and ends that much inside a pause
FEWEST = 5  # frames of either
_BLOCK = 1 << 12  # frames whose levels are measured together


class Lmd:
    """A `Measure`: landmark distance (Chen et al., ECCV 2018, without their normalisation)."""

    name = "lmd"
    columns = (Column("lmd_px", "px", "low", 2), Column("lmd_share", "face widths", "low", 4))

    def __init__(self, finder: PointFinder) -> None:
        self.finder = finder
        self.protocol = (
            f"Mean distance of the mouth's landmarks of made and source on aligned faces: {finder.name}; in pixels of an aligned face of "
            f"{TEMPLATE_RESOLUTION} pixels a side, and as a share of that side, which is about the width of the face. "
            f"{RECONSTRUCTION_ALONE}"
        )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _LmdTally(self.finder) if case.kind == "reconstruction" else NothingTally(self.columns)


class _LmdTally:
    """One video: the sum over frames with a mouth in both."""

    def __init__(self, finder: PointFinder) -> None:
        self._finder, self._sum, self._count = finder, 0.0, 0

    def add(self, chunk: Chunk) -> None:
        apart = (self._finder.find(chunk.faces) - self._finder.find(chunk.source_faces)).norm(dim=-1).mean(-1)  # k
        found = apart[apart.isfinite()]
        self._sum, self._count = self._sum + float(found.double().sum()), self._count + len(found)

    def finish(self) -> Numbers:
        share = self._sum / require_faces(self._count)
        return {"lmd_px": share * TEMPLATE_RESOLUTION, "lmd_share": share}


class Silence:
    """A `Measure`: whether the lips rest where nothing is heard."""

    name = "silence"
    columns = (Column("silence_open", better="low"),)

    def __init__(self, finder: PointFinder) -> None:
        self.finder = finder
        known = finder.name if finder.has_lips else f"nothing, since two corners have no opening ({finder.name})"
        self.protocol = (
            f"Mean opening of the inner lips in silence over that in speech, by {known}. The level of a frame is that of the sound's "
            f"{SAMPLES} samples at {AUDIO_SAMPLE_RATE} Hz; speech is from {SPEECH_DB:.0f} dB of the {LOUD}th percentile of levels on, "
            f"silence up to {SILENCE_DB:.0f} dB and at least {MARGIN} frames away from anything louder. "
            f"None without {FEWEST} frames of either: 0 is a mouth that closes, 1 one that pays no attention."
        )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _SilenceTally(self.finder, case.audio) if self.finder.has_lips else NothingTally(self.columns)


class _SilenceTally:
    """One video: the opening of the lips in each frame that shows them."""

    def __init__(self, finder: PointFinder, audio: Path) -> None:
        self._finder, self._audio = finder, audio
        self._numbers: list[int] = []
        self._openings: list[float] = []

    def add(self, chunk: Chunk) -> None:
        openings = lip_gaps(self._finder.find(chunk.faces)).mean(-1)
        found = openings.isfinite().numpy()
        self._numbers += (np.flatnonzero(chunk.has_face)[found] + chunk.start).tolist()
        self._openings += openings[torch.from_numpy(found)].tolist()

    def finish(self) -> Numbers:
        """Raises InputError where there is no sound, or no face."""
        require_faces(len(self._openings))
        return {"silence_open": opening_in_silence(self._numbers, self._openings, frame_levels(self._audio))}


def frame_levels(path: Path) -> np.ndarray:
    """Root mean square of a sound in each frame's time, n, in [0, 1]; of whole frames alone. Raises InputError where there is none."""
    levels = []
    with AudioSamples(path) as samples:
        for start in range(0, len(samples) // SAMPLES, _BLOCK):
            block = samples[start * SAMPLES : (start + _BLOCK) * SAMPLES]
            whole = block[: len(block) // SAMPLES * SAMPLES].reshape(-1, SAMPLES)
            levels.append(np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1)))
    return np.concatenate(levels) if levels else np.zeros(0)


def silent_and_spoken(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which frames are silent and which are speech, bool n each, by the levels n of all frames."""
    loud = float(np.percentile(levels, LOUD)) if len(levels) else 0.0
    if loud <= SILENCE / FULL_SCALE:
        return np.ones(len(levels), bool), np.zeros(len(levels), bool)
    quiet = levels <= loud * 10 ** (SILENCE_DB / 20)
    padded = np.pad(quiet, MARGIN, constant_values=True)  # before a sound and after it is silence
    silent = np.lib.stride_tricks.sliding_window_view(padded, 2 * MARGIN + 1).all(axis=1)
    return silent, levels >= loud * 10 ** (SPEECH_DB / 20)


def opening_in_silence(numbers: Sequence[int], openings: Sequence[float], levels: np.ndarray) -> float | None:
    """Mean opening in silence over that in speech; None with too few frames of either, or lips that are never open in speech.

    Args:
        numbers: of the frames whose opening is known.
        openings: of their lips, in any unit.
        levels: of the sound in all frames.
    """
    silent, spoken = silent_and_spoken(levels)
    heard = [(number, opening) for number, opening in zip(numbers, openings, strict=True) if number < len(levels)]
    rest, speech = ([opening for number, opening in heard if which[number]] for which in (silent, spoken))
    if min(len(rest), len(speech)) < FEWEST or not np.mean(speech) > 0:
        return None
    return float(np.mean(rest) / np.mean(speech))
