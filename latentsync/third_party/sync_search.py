"""Embeddings of mouth and sound -> their offset and how sure it is; any network that puts both into one space.

Origin: "Out of time: automated lip sync in the wild" (Chung and Zisserman, ACCV 2016 workshops), section on the offset; repository
joonson/syncnet_python (MIT). Written for this project from the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.errors import InputError

MAX_SHIFT = 15  # frames the sound is moved either way
_EPS = 1e-6  # added to each component of a difference before its length is taken


@dataclass(frozen=True)
class Offset:
    offset: int  # frames; +3 means that the sound of a frame comes three frames before its picture
    confidence: float  # how much smaller the least distance is than the middle one; over 3 counts as in step, over 6 as good
    distances: np.ndarray  # mean at each shift, from the sound of `MAX_SHIFT` frames earlier to as many later: float64 [31]

    @property
    def distance(self) -> float:
        return float(self.distances.min())


class OffsetSearch:
    """Mean distances of windows that come piece by piece; keeps as many embeddings as the shifts reach."""

    def __init__(self) -> None:
        self._sums = torch.zeros(2 * MAX_SHIFT + 1, dtype=torch.float64)
        self._count = 0
        self._video: Tensor | None = None  # n d: windows whose later sound is not known yet
        self._audio: Tensor | None = None  # from `MAX_SHIFT` windows before the first of them on

    def add(self, video: Tensor, audio: Tensor) -> None:
        """Take the next windows: m d each, float, on one device."""
        if self._video is None or self._audio is None:
            self._video, self._audio = video[:0], audio.new_zeros(MAX_SHIFT, audio.shape[1])
        self._video, self._audio = torch.cat([self._video, video]), torch.cat([self._audio, audio])
        ready = len(self._audio) - 2 * MAX_SHIFT
        if ready > 0:
            self._sums += distance_sums(self._video[:ready], self._audio[: ready + 2 * MAX_SHIFT])
            self._count += ready
            self._video, self._audio = self._video[ready:], self._audio[ready:]

    def finish(self) -> Offset:
        """The result, once all windows were added; beyond its ends the sound counts as zeros. Raises InputError without windows."""
        if self._video is None or self._audio is None:
            raise InputError("There is nothing whose offset could be searched: use a longer clip.")
        sums = self._sums
        if len(self._video):
            silence = self._audio.new_zeros(MAX_SHIFT, self._audio.shape[1])
            sums = sums + distance_sums(self._video, torch.cat([self._audio, silence]))
        distances = (sums / (self._count + len(self._video))).numpy()
        confidence = np.sort(distances)[MAX_SHIFT] - distances.min()
        return Offset(MAX_SHIFT - int(distances.argmin()), float(confidence), distances)


def distance_sums(video: Tensor, audio: Tensor) -> Tensor:
    """Distances of video n d to each row of audio (n + 30) d that a shift puts beside it, as sums over n: float64 [31] on the CPU."""
    shifts = len(audio) - len(video) + 1
    distances = torch.stack([F.pairwise_distance(video, audio[j : j + len(video)], eps=_EPS) for j in range(shifts)])
    return distances.cpu().double().sum(1)


def over_tracks(results: Sequence[Offset]) -> Offset:
    """Several tracks of one video as one result: means, that of the offset without its fraction. Raises InputError without tracks."""
    if not results:
        raise InputError("No face track of this video can be compared with its sound: use one that shows a face for at least two seconds.")
    return Offset(
        int(np.mean([result.offset for result in results])),
        float(np.mean([result.confidence for result in results])),
        np.mean([result.distances for result in results], axis=0),
    )
