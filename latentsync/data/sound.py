"""What is heard of a clip, computed once for each clip: SyncNet's mel spectrogram, and Whisper's states."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from latentsync.constants import VIDEO_FPS
from latentsync.data.cache import ClipCache
from latentsync.errors import InputError
from latentsync.media.audio import read_audio
from latentsync.spectrogram import COLUMNS_PER_SECOND, log_mel
from latentsync.whisper.audio2feature import Audio2Feature, window_steps
from latentsync.whisper.loading import load_whisper_encoder, whisper_sha256

_MEL_KIND = "mel-1"
_PIECE = 1500  # encoder steps that are held in float32 at once


class Mels:
    """Mel spectrograms of clips.

    Args:
        cache_dir: where they are kept.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._cache = ClipCache(cache_dir, _MEL_KIND)

    def __call__(self, path: Path) -> Tensor:
        """The mel of a clip's whole sound: float32 80 t, mapped into memory. Raises InputError."""
        return torch.from_numpy(self._cache.get(path, lambda: _mel(path)))


def heard_frames(mel: Tensor) -> int:
    """Video frames whose sound a mel (80 t) holds to their end: every window within them fits."""
    return mel.shape[-1] * VIDEO_FPS // COLUMNS_PER_SECOND


class Features:
    """Whisper's features of clips: the same windows that inference computes, from states kept in float16.

    It may be sent to another process; each process loads its own encoder when it first meets a clip that is not kept yet.

    Args:
        cache_dir: where the states are kept.
        encoder: Whisper's checkpoint, a file or a folder.
        feat_length: video frames of sound that a window hears before and after its own frame.
    """

    def __init__(self, cache_dir: Path, encoder: Path, feat_length: tuple[int, int] = (2, 2)) -> None:
        """Raises WeightsError when the encoder cannot be read."""
        self.encoder_path = Path(encoder)
        self.feat_length = (feat_length[0], feat_length[1])
        self._cache = ClipCache(cache_dir, f"whisper-{whisper_sha256(self.encoder_path, 'check weights.whisper')[:16]}")
        self._extractor: Audio2Feature | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the encoder."""
        return self.__dict__ | {"_extractor": None}

    @property
    def width(self) -> int:
        """Width of one token."""
        return self._encoder().width

    def window(self, path: Path, start: int, stop: int) -> Tensor:
        """Windows of the video frames `start` to `stop` of a clip: float32 f n d. Raises InputError."""
        states = torch.from_numpy(self._cache.get(path, lambda: self._states(path)))  # t l d
        steps = window_steps(start, stop, self.feat_length, len(states))
        return rearrange(states[steps].float(), "f p l d -> f (p l) d")

    def _encoder(self) -> Audio2Feature:
        """This process's encoder, loaded when it is first needed."""
        if self._extractor is None:
            self._extractor = Audio2Feature(load_whisper_encoder(self.encoder_path), self.feat_length)
        return self._extractor

    def _states(self, path: Path) -> np.ndarray:
        """States of all encoder steps of a clip: float16 t l d."""
        windows = self._encoder().windows(read_audio(path))
        ends = [*range(_PIECE, windows.num_steps, _PIECE), windows.num_steps]
        pieces = [windows.features(start, stop).half().numpy() for start, stop in zip([0, *ends], ends, strict=False)]
        return np.concatenate(pieces)


def _mel(path: Path) -> np.ndarray:
    samples = read_audio(path)
    if not len(samples):
        raise InputError(f"{path} holds no sound: make this clip again")
    return log_mel(samples).float().numpy()
