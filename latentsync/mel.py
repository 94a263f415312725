"""The mel spectrogram that SyncNet sees."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS

PRE_EMPHASIS = 0.97
N_FFT = 800  # samples of a column: 50 ms
HOP = 200  # samples between columns
COLUMNS_PER_SECOND = AUDIO_SAMPLE_RATE // HOP  # 80
BANDS = 80
LOWEST, HIGHEST = 55.0, 7600.0  # Hz
REFERENCE_DB, SILENCE_DB, SCALE = 20.0, -100.0, 4.0
_FLOOR = 1e-5  # magnitude below which all is silence


def log_mel(samples: np.ndarray | Tensor) -> Tensor:
    """Mono samples in [-1, 1] at AUDIO_SAMPLE_RATE (t) -> float64 [BANDS, 1 + t // HOP] in [-4, 4]."""
    wave = torch.as_tensor(samples, dtype=torch.float64)
    emphasised = torch.cat([wave[:1], wave[1:] - PRE_EMPHASIS * wave[:-1]])
    window = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
    spectrum = torch.stft(emphasised, N_FFT, HOP, N_FFT, window, center=True, pad_mode="constant", return_complex=True)
    bands = torch.from_numpy(mel_filters()).double() @ spectrum.abs()
    decibels = 20 * torch.log10(bands.clamp_min(_FLOOR)) - REFERENCE_DB
    return (2 * SCALE * (decibels - SILENCE_DB) / -SILENCE_DB - SCALE).clamp(-SCALE, SCALE)


def window_start(frame: int) -> int:
    """First column of the window that belongs to video frame `frame` (at VIDEO_FPS)."""
    return COLUMNS_PER_SECOND * frame // VIDEO_FPS


def window_length(num_frames: int) -> int:
    """Columns that sound as long as `num_frames` video frames: 16 for 5, 52 for 16, 80 for 25."""
    return -(-COLUMNS_PER_SECOND * num_frames // VIDEO_FPS)


def mel_window(mel: Tensor, frame: int, num_frames: int) -> Tensor:
    """The window of `num_frames` video frames from `frame` on: [1, BANDS, n]. Raises ValueError where the sound ends before."""
    start, length = window_start(frame), window_length(num_frames)
    if start + length > mel.shape[-1]:
        raise ValueError(f"frames {frame} to {frame + num_frames} need {start + length} columns of sound and there are {mel.shape[-1]}")
    return mel[None, :, start : start + length]


def audio_frames(mel: Tensor) -> int:
    """Video frames whose sound a mel (80 t) holds to their end: every window within them fits."""
    return mel.shape[-1] * VIDEO_FPS // COLUMNS_PER_SECOND


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """Triangles of equal area over the bins of a spectrum: float32 [BANDS, N_FFT // 2 + 1] (Slaney, Auditory Toolbox, 1998)."""
    from transformers.audio_utils import mel_filter_bank  # takes half a second to import

    filters = mel_filter_bank(N_FFT // 2 + 1, BANDS, LOWEST, HIGHEST, AUDIO_SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return np.ascontiguousarray(filters.T, dtype=np.float32)
