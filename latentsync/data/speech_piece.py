"""One piece of speech as an encoder hears it in use, with what is said at every step: put together and varied by seeded chance."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import resample_poly
from torch import Tensor
from whisper.audio import log_mel_spectrogram

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS, WHISPER_HOP_LENGTH, WHISPER_MEL_PER_STEP, WHISPER_STEPS_PER_SECOND

UNLABELLED = -100  # phone of steps without sound: cross-entropy passes them over
SILENCE = 0  # index of silence among the phones
STEP = WHISPER_HOP_LENGTH * WHISPER_MEL_PER_STEP  # samples in a step

_SHORT_SHARE = 0.5  # pieces that end before the context does, as most recordings do
_SHORTEST = 1.0  # s
_EXCERPT = 2.0  # s of a recording that are taken at least
_SPEEDS = np.arange(36, 45)  # fortieths: 0.9 to 1.1 times as fast
_SPEED_PARTS = 40
_FADE = 0.01  # s at either end of an excerpt
_UNSURE = 5  # steps around a joint whose mouth is unknown: it moves towards what was cut off
_LONG_PAUSE_SHARE = 0.06
_LOUDER = 0.5  # log10 units: how much louder the rest of a long recording may be than the piece that is heard


@dataclass(frozen=True)
class Recording:
    """Speech and the truth about it."""

    samples: np.ndarray  # float32 t, in [-1, 1]
    phones: np.ndarray  # int64 p
    phone_ends: np.ndarray  # float64 p, s
    mouth: np.ndarray  # float32 n k: channels of every video frame
    rest: np.ndarray  # float32 k: the mouth while nobody speaks

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / AUDIO_SAMPLE_RATE

    def truth(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Phones (int64 s) and mouth (float32 s k) at these times (s)."""
        place = np.searchsorted(self.phone_ends, times, side="right").clip(0, len(self.phones) - 1)
        where = (times * VIDEO_FPS - 0.5).clip(0, len(self.mouth) - 1)  # a frame tells the mean over its exposure: its middle
        before = where.astype(int).clip(0, max(len(self.mouth) - 2, 0))
        after = np.minimum(before + 1, len(self.mouth) - 1)
        share = (where - before).astype(np.float32)[:, None]
        return self.phones[place], (1 - share) * self.mouth[before] + share * self.mouth[after]


@dataclass(frozen=True)
class Piece:
    """Sound and the truth of every step (20 ms) of it."""

    samples: np.ndarray  # float32, STEP for each step
    phones: np.ndarray  # int64 s
    mouth: np.ndarray  # float32 s k; no number where it is unknown


def plain_piece(recording: Recording, context: int) -> Piece:
    """The beginning of a recording, as much as a context of so many steps holds."""
    steps = min(len(recording.samples) // STEP, context)
    phones, mouth = recording.truth(np.arange(steps) / WHISPER_STEPS_PER_SECOND)
    return Piece(recording.samples[: steps * STEP], phones, mouth)


def drawn_piece(rng: np.random.Generator, recordings: Iterator[Recording], context: int) -> Piece:
    """Excerpts of several recordings with pauses between them, in half of all cases shorter than the context."""
    steps = context
    if rng.random() < _SHORT_SHARE:
        shortest = min(round(_SHORTEST * WHISPER_STEPS_PER_SECOND), context)
        steps = int(np.exp(rng.uniform(np.log(shortest), np.log(context))))
    recording = next(recordings)
    piece = Piece(np.zeros(steps * STEP, np.float32), np.full(steps, SILENCE), np.tile(recording.rest, (steps, 1)))
    clock = _pause(rng) if rng.random() < 0.5 else 0
    while clock < steps:
        clock += _place(rng, piece, recording, clock) + _pause(rng)
        recording = next(recordings) if clock < steps else recording
    return Piece(_coloured(rng, piece.samples), piece.phones, piece.mouth)


def _pause(rng: np.random.Generator) -> int:
    """Steps of silence between two excerpts."""
    seconds = rng.uniform(2, 6) if rng.random() < _LONG_PAUSE_SHARE else rng.exponential(0.4)
    return int(seconds * WHISPER_STEPS_PER_SECOND)


def _place(rng: np.random.Generator, piece: Piece, recording: Recording, clock: int) -> int:
    """Put an excerpt of a recording, a little faster or slower, into a piece from step `clock` on; the steps that it takes."""
    up, speed = _SPEED_PARTS, int(rng.choice(_SPEEDS))
    whole = int(recording.seconds * WHISPER_STEPS_PER_SECOND)  # steps, of the recording as it is
    taken = int(rng.integers(min(round(_EXCERPT * WHISPER_STEPS_PER_SECOND), whole), whole + 1))
    begin = int(rng.integers(whole - taken + 1))
    samples = recording.samples[begin * STEP : (begin + taken) * STEP]
    samples = samples if speed == up else resample_poly(samples, up, speed).astype(np.float32)
    steps = min(len(samples) // STEP, len(piece.phones) - clock)
    samples = samples[: steps * STEP] * np.float32(10 ** (rng.uniform(-6, 6) / 20))
    fade = min(round(_FADE * AUDIO_SAMPLE_RATE), len(samples))
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    samples[:fade] *= ramp
    samples[len(samples) - fade :] *= ramp[::-1]
    times = (begin + np.arange(steps) * (speed / up)) / WHISPER_STEPS_PER_SECOND
    piece.samples[clock * STEP : (clock + steps) * STEP] = samples
    piece.phones[clock : clock + steps], piece.mouth[clock : clock + steps] = recording.truth(times)
    for joint in (clock, clock + steps):
        if 0 < joint < len(piece.phones):
            piece.mouth[max(joint - _UNSURE, 0) : joint + _UNSURE] = np.nan
    return steps


def _coloured(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """The samples through an equaliser of a few dB, with a noise floor in half of all cases, at another level."""
    length = next_fast_len(len(samples), real=True)
    octave = np.log2(np.maximum(rfftfreq(length, 1 / AUDIO_SAMPLE_RATE), 60.0).astype(np.float32) / 1000)
    decibels = sum(np.float32(rng.uniform(-2.5, 2.5)) * np.cos(rate * octave + np.float32(rng.uniform(0, 6.3))) for rate in (0.5, 1.0, 2.0))
    spectrum = rfft(samples, length) * 10 ** (decibels / 20)
    if rng.random() < 0.5:
        noise = rng.standard_normal((2, len(octave)), np.float32) * np.exp2(-octave * np.float32(rng.uniform(0, 1)))
        ratio = 10 ** (rng.uniform(12, 55) / 20)
        scale = np.linalg.norm(spectrum) / max(np.linalg.norm(noise) * ratio, 1e-9)
        spectrum += np.complex64(scale) * (noise[0] + 1j * noise[1])
    coloured = irfft(spectrum, length)[: len(samples)]
    gain = min(10 ** (rng.uniform(-12, 12) / 20), 0.99 / max(float(np.abs(coloured).max()), 1e-6))
    return (coloured * gain).astype(np.float32)


def heard(samples: np.ndarray) -> Tensor:
    """The normalised log-mel of a recording: float32 80 t, as `latentsync.whisper.log_mel.LogMel` computes it."""
    return log_mel_spectrogram(torch.from_numpy(samples))


def varied(rng: np.random.Generator, mel: Tensor, context: int) -> Tensor:
    """A log-mel (m t) as if a long recording were louder elsewhere, with spans of time and of pitch masked (SpecAugment,
    arXiv 1904.08779)."""
    bands, columns = mel.shape
    if columns == context * WHISPER_MEL_PER_STEP and rng.random() < 0.5:
        mel = torch.clamp(mel, min=float(mel.max()) + (rng.uniform(0, _LOUDER) - 8) / 4)
    mel, mean = mel.clone(), float(mel.mean())
    for _ in range(rng.poisson(columns / 500)):  # one in five seconds
        width = int(rng.integers(1, 21))
        start = int(rng.integers(max(columns - width, 1)))
        mel[:, start : start + width] = mean
    for _ in range(int(rng.integers(3))):
        width = int(rng.integers(1, 11))
        start = int(rng.integers(bands - width))
        mel[start : start + width] = mean
    return mel


def fitted(mel: Tensor, piece: Piece, context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-mel (m 2c), phones (c) and mouth (c k) of a whole context: beyond the sound zeros, as in use, and nothing to be told."""
    missing = context - len(piece.phones)
    phones = F.pad(torch.from_numpy(piece.phones), (0, missing), value=UNLABELLED)
    mouth = F.pad(torch.from_numpy(piece.mouth), (0, 0, 0, missing), value=float("nan"))
    return F.pad(mel, (0, context * WHISPER_MEL_PER_STEP - mel.shape[1])), phones, mouth
