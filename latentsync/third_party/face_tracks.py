"""Boxes of faces -> tracks of one face each -> the crops that SyncNet v2 was trained on.

Origin: "Out of time: automated lip sync in the wild" (Chung and Zisserman, ACCV 2016 workshops), section on the data; repository
joonson/syncnet_python (MIT). Written for this project from the paper. Of a video only a few numbers a frame are kept.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from scipy.signal import medfilt
from torchvision.ops import box_iou

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.third_party.s3fd import S3FD

MIN_OVERLAP = 0.5  # of boxes of one face in successive detections: intersection over union
MAX_STEP = 25  # frames from one detection of a face to the next
MIN_DETECTIONS = 50  # a track has more
MIN_SIDE = 100  # pixels: a track's mean width or mean height is larger
SIDE = 224  # pixels of a crop

_MEDIAN = 13  # frames of the filter along time
_ABOVE, _BELOW, _BESIDE = 1.0, 1.8, 1.4  # where a crop ends, in half sides of the box from its middle
_BORDER = 110  # grey of a crop beyond the edge of the picture


@dataclass(frozen=True)
class FaceTrack:
    """One face through successive frames, gaps filled."""

    start: int  # its first frame
    boxes: np.ndarray  # float64 n 4: x0 y0 x1 y1 in pixels of the picture

    @property
    def stop(self) -> int:
        return self.start + len(self.boxes)

    @property
    def samples(self) -> slice:
        """Its part of the sound, at 16 kHz, where frames last 1/25 of a second."""
        return slice(*(frame * AUDIO_SAMPLE_RATE // VIDEO_FPS for frame in (self.start, self.stop)))


Chain = dict[int, np.ndarray]  # frame -> box of one face, in order of time


class SyncNetDetector:
    """The tracks of faces in a video, by S3FD on whatever device; pictures go by in batches and are not kept."""

    def __init__(self, network: S3FD, batch_size: int = 16) -> None:
        self.network, self.batch_size = network, batch_size

    def __call__(self, frames: Iterable[np.ndarray]) -> list[FaceTrack]:
        """Tracks in order of time through frames uint8 h w 3, RGB, 25 a second, all of one size."""
        return link_faces(self.boxes(frames))

    def boxes(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The faces of each frame: k 5."""
        frames = iter(frames)
        while batch := list(islice(frames, self.batch_size)):
            yield from self.network.detect(batch)


def link_faces(detections: Iterable[np.ndarray], cuts: Collection[int] = ()) -> list[FaceTrack]:
    """Tracks, long and large ones, in order of time, of the boxes k 4 (or k 5) of each frame in pixels; none goes across a cut."""
    new_shots = frozenset(cuts)
    live: list[Chain] = []
    tracks: list[FaceTrack] = []
    for frame, boxes in enumerate(detections):
        reach = 0 if frame in new_shots else MAX_STEP
        tracks += _finish([chain for chain in live if frame - _last(chain) > reach])
        live = [chain for chain in live if frame - _last(chain) <= reach]
        free = list(np.asarray(boxes, np.float64)[:, :4])
        for chain in live:  # the oldest first takes the box that overlaps its last one most
            shares = box_iou(torch.from_numpy(chain[_last(chain)][None]), torch.from_numpy(np.reshape(free, (-1, 4))))[0]
            if free and shares.max() > MIN_OVERLAP:
                chain[frame] = free.pop(int(shares.argmax()))
        live += [{frame: box} for box in free]
    return sorted(tracks + _finish(live), key=lambda track: track.start)


def _last(chain: Chain) -> int:
    return next(reversed(chain))


def _finish(chains: list[Chain]) -> list[FaceTrack]:
    """Chains as tracks, those that are long and large enough; boxes between detections are linear."""
    tracks = []
    for chain in chains:
        every = np.arange(next(iter(chain)), _last(chain) + 1)
        boxes = np.stack([np.interp(every, list(chain), edge) for edge in np.stack(list(chain.values()), 1)], 1)
        if len(chain) > MIN_DETECTIONS and (boxes[:, 2:] - boxes[:, :2]).mean(0).max() > MIN_SIDE:
            tracks.append(FaceTrack(int(every[0]), boxes))
    return tracks


def crop_path(boxes: np.ndarray) -> np.ndarray:
    """Middle x, middle y and half the larger side of boxes n 4, each filtered along time with zeros beyond the ends, as published: n 3."""
    low, high = boxes[:, :2], boxes[:, 2:]
    values = np.column_stack([(low + high) / 2, (high - low).max(1) / 2])
    return np.stack([medfilt(column, _MEDIAN) for column in values.T], 1)


def crop_face(frame: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The face at one place of `crop_path`, its mouth near the middle: uint8 224 224 3, grey beyond the edges of the frame h w 3."""
    x, y, half = (float(value) for value in place)
    edges = np.array([[y - _ABOVE * half, y + _BELOW * half], [x - _BESIDE * half, x + _BESIDE * half]])
    (top, bottom), (left, right) = np.floor(edges).astype(int)
    rows, columns = (np.clip(ends, 0, side) for ends, side in zip(((top, bottom), (left, right)), frame.shape, strict=False))
    face = np.full((bottom - top, right - left, frame.shape[2]), _BORDER, np.uint8)
    face[slice(*rows - top), slice(*columns - left)] = frame[slice(*rows), slice(*columns)]
    return cv2.resize(face, (SIDE, SIDE))


def track_crops(frames: Iterable[np.ndarray], track: FaceTrack) -> Iterator[np.ndarray]:
    """The crops of one track, uint8 224 224 3 each; `frames`, uint8 h w 3, begin at the track's first frame."""
    for frame, place in zip(frames, crop_path(track.boxes), strict=False):
        yield crop_face(frame, place)
