"""Whisper's log-mel spectrogram of sound of any length, computed piece by piece.

Equal to `whisper.audio.log_mel_spectrogram`, whose floor hangs on the loudest moment of the *whole* recording: one pass finds that
moment, pieces are computed when they are asked for, and only the samples of one piece are ever held.
"""

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from whisper.audio import N_FFT, mel_filters

from latentsync.constants import WHISPER_HOP_LENGTH

COLUMNS_PER_PASS = 6000  # one minute of sound at a time while the loudest moment is sought
SMALLEST_POWER = 1e-10
DYNAMIC_RANGE = 8.0  # log10 units below the loudest moment at which the spectrogram is cut off


class Samples(Protocol):
    """Mono samples in [-1, 1] at 16 kHz, sliced on demand: an array, or a file mapped into memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice) -> np.ndarray: ...


class LogMel:
    """Columns of the normalised log-mel spectrogram, 100 a second, each centred on its own sample.

    Args:
        samples: mono sound at 16 kHz, float in [-1, 1].
        n_mels: number of mel bands.
    """

    def __init__(self, samples: Samples, n_mels: int = 80) -> None:
        self.samples = samples
        self.n_mels = n_mels
        self.num_columns = max(len(samples), N_FFT) // WHISPER_HOP_LENGTH  # sound shorter than one transform is padded to it
        starts = range(0, self.num_columns, COLUMNS_PER_PASS)
        self.loudest = max(float(self._log_power(start, min(start + COLUMNS_PER_PASS, self.num_columns)).max()) for start in starts)

    def columns(self, start: int, stop: int) -> torch.Tensor:
        """Normalised columns `start` to `stop` (both within the recording): float32 (n_mels, stop - start)."""
        floored = torch.clamp(self._log_power(start, stop), min=self.loudest - DYNAMIC_RANGE)
        return (floored + 4.0) / 4.0

    def _log_power(self, start: int, stop: int) -> torch.Tensor:
        samples = self._samples_around(start * WHISPER_HOP_LENGTH, (stop - 1) * WHISPER_HOP_LENGTH)
        window = torch.hann_window(N_FFT)
        spectrum = torch.stft(samples, N_FFT, WHISPER_HOP_LENGTH, window=window, center=False, return_complex=True)
        power = mel_filters(spectrum.device, self.n_mels) @ (spectrum.abs() ** 2)  # m t
        return torch.clamp(power, min=SMALLEST_POWER).log10()

    def _samples_around(self, first: int, last: int) -> torch.Tensor:
        """The samples that columns centred on `first` to `last` see; the recording is mirrored at its ends."""
        half, total = N_FFT // 2, len(self.samples)
        if total < N_FFT:
            short = np.zeros(N_FFT, dtype=np.float32)
            short[:total] = self.samples[0:total]
            return F.pad(torch.from_numpy(short)[None], (half, half), mode="reflect")[0, first : last + N_FFT]
        low, high = max(first - half, 0), min(last + half, total)
        missing = max(half - first, 0), max(last + half - total, 0)
        reach = max(*missing, 1) + 1  # mirroring needs one sample more than it adds
        low, high = min(low, total - reach), max(high, reach)
        samples = torch.from_numpy(np.asarray(self.samples[low:high], dtype=np.float32))
        return F.pad(samples[None], missing, mode="reflect")[0]


class FollowedBySilence:
    """Samples that go on with digital silence (or are cut) to a length of `total`."""

    def __init__(self, samples: Samples, total: int) -> None:
        self.samples = samples
        self.total = total

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.total)
        sound = np.asarray(self.samples[min(start, len(self.samples)) : min(stop, len(self.samples))], dtype=np.float32)
        return np.pad(sound, (0, stop - start - len(sound)))
