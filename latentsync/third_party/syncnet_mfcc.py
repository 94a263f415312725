"""Audio features of SyncNet v2: 13 mel-frequency cepstral coefficients, 100 columns a second.

Origin: Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition" (1980), with the defaults of
the package python_speech_features (MIT), which the network was trained on. Written for this project.
"""

from functools import cache

import numpy as np
from scipy.fft import dct

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.media.audio import FULL_SCALE, Samples

COEFFICIENTS = 13
WINDOW = AUDIO_SAMPLE_RATE * 25 // 1000  # samples of one column: 25 ms
HOP = AUDIO_SAMPLE_RATE * 10 // 1000  # samples from one column to the next: 10 ms
_FFT = 512  # points
_FILTERS = 26  # mel bands
_PRE_EMPHASIS = 0.97
_LIFTER = 22
_BLOCK = 4096  # columns that are computed together
_TINY = np.finfo(np.float64).eps  # in place of powers of zero, whose logarithm is taken


def column_count(num_samples: int) -> int:
    """Columns of a recording; the last one may reach beyond its end."""
    return 1 + max(0, -((WINDOW - num_samples) // HOP))


def mfcc(samples: Samples) -> np.ndarray:
    """The coefficients of a mono recording at 16 kHz (floats or 16-bit): float64 13 t, the first of them the logarithm of the loudness."""
    count = column_count(len(samples))
    return np.concatenate([_columns(samples, start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]).T


def _columns(samples: Samples, start: int, stop: int) -> np.ndarray:
    """Columns start..stop as rows: n 13."""
    length = (stop - start - 1) * HOP + WINDOW
    before = min(start, 1)
    part = samples[start * HOP - before : start * HOP + length]
    signal = part.astype(np.float64) * (FULL_SCALE if part.dtype.kind == "f" else 1)
    signal[1:] -= _PRE_EMPHASIS * signal[:-1]
    signal = np.pad(signal[before:], (0, length - len(signal) + before))
    pieces = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]  # n 400
    power = np.abs(np.fft.rfft(pieces, _FFT)) ** 2 / _FFT  # n 257
    bands = _positive(power @ _mel_filters().T)  # n 26
    rows = dct(np.log(bands), type=2, norm="ortho")[:, :COEFFICIENTS]
    rows *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / _LIFTER)
    rows[:, 0] = np.log(_positive(power.sum(1)))
    return rows


def _positive(power: np.ndarray) -> np.ndarray:
    return np.where(power == 0, _TINY, power)


@cache
def _mel_filters() -> np.ndarray:
    """Triangles between points that are evenly spread in mel from 0 to 8000 Hz: 26 257."""
    top = 2595 * np.log10(1 + AUDIO_SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    points = np.floor((_FFT + 1) * hertz / AUDIO_SAMPLE_RATE)
    low, middle, high = points[:-2, None], points[1:-1, None], points[2:, None]
    bins = np.arange(_FFT // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.clip(np.where(bins < middle, rising, falling), 0, None)
