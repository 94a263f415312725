"""Lip landmarks: finders of mouth points, their distance, opening in silence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from facenet_pytorch.models.mtcnn import ONet
from scipy.ndimage import binary_erosion
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Metric, Numbers, require_faces
from eval.metrics.image import FACES_AT_ONCE, RECONSTRUCTION_ALONE
from latentsync.constants import AUDIO_SAMPLE_RATE, TEMPLATE_RESOLUTION, VIDEO_FPS
from latentsync.faces.alignment import face_size, one_thread
from latentsync.faces.detector import MIN_FOLLOW_SCORE, SHIFTS, FaceDetector, cut_square, from_squares
from latentsync.faces.mask import to_pixels
from latentsync.media.audio import FULL_SCALE, SILENCE, AudioSamples
from latentsync.models.landmark_network import FIRST_POINT, POINTS, LandmarkNetwork, lip_gaps, load_landmark_network
from latentsync.weights import WEIGHTS

LAST_POINT = FIRST_POINT + POINTS
CORNER_POINTS = slice(3, 5)  # the mouth's corners among MTCNN's five points
BORDER = 0.25  # of the crop's height: added around a face that fills its picture, so that a detector sees it whole
FACE_CENTRE, FACE_SIDE = (0.48, 0.40), 0.84  # of the square that MTCNN is given: shares of the crop's width and height; of its height
SAMPLES = AUDIO_SAMPLE_RATE // VIDEO_FPS  # of one frame
LOUD = 95  # percentile of the levels of frames that a sound's level is
SPEECH_DB, SILENCE_DB = -15.0, -30.0  # levels of frames against it: of speech from here on, of silence up to here
MARGIN = 3  # frames: lips move before a sound and after it, so silence begins and ends that much inside a pause
FEWEST = 5  # frames of either
_BLOCK = 1 << 12  # frames whose levels are measured together


class PointFinder:
    """Finds the points of mouths, once where several metrics need those of the same faces."""

    name: str  # in words, for protocols
    _last: Sequence[tuple[Tensor, Tensor]] = ()  # faces and points of two chunks

    def find(self, faces: Tensor) -> Tensor:
        """Aligned faces uint8 k R R 3 -> float32 k p 2: shares of the face's side, x before y; NaN where there is no mouth."""
        for known, points in self._last:
            if known is faces:
                return points
        self._last = [*self._last[-1:], (faces, self.locate(faces))]
        return self._last[-1][1]

    def locate(self, faces: Tensor) -> Tensor:
        """As `find`, for faces that were not given before."""
        raise NotImplementedError


class LandmarkPoints(PointFinder):
    """Points 48 to 67 of a detector that finds 68 landmarks in a picture."""

    name = "points 48 to 67 of face-alignment's 68 (2DFAN-4)"

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector

    def locate(self, faces: Tensor) -> Tensor:
        points = torch.full((len(faces), POINTS, 2), torch.nan)
        for index, face in enumerate(faces):
            width, height = size = face_size(len(face))
            border = round(BORDER * height)
            picture = cv2.copyMakeBorder(cv2.resize(face.numpy(), size), border, border, border, border, cv2.BORDER_REPLICATE)
            found = [seen for seen in self.detector.detect(picture) if seen.landmarks is not None]
            if found:
                landmarks = max(found, key=lambda seen: seen.width * seen.height).landmarks[FIRST_POINT:LAST_POINT]
                points[index] = torch.from_numpy((landmarks + 0.5 - border) / (width, height))  # whole numbers are pixel centres
        return points


class NetworkPoints(PointFinder):
    """The 20 points of a landmark network of this project."""

    name = "the 20 points of this project's landmark network"

    def __init__(self, network: LandmarkNetwork) -> None:
        self.network = network

    @torch.no_grad()
    def locate(self, faces: Tensor) -> Tensor:
        if not len(faces):
            return torch.empty(0, POINTS, 2)
        device = next(self.network.parameters()).device
        return torch.cat([self.network(to_pixels(part.to(device))).points.cpu() for part in faces.split(FACES_AT_ONCE)])


class CornerPoints(PointFinder):
    """The mouth's corners by the last of MTCNN's networks, on squares around the place where alignment has put the face."""

    name = "the two corners of the mouth by MTCNN, since neither face-alignment's files nor a landmark network are here"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = ONet().eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def locate(self, faces: Tensor) -> Tensor:
        if not len(faces):
            return torch.empty(0, 2, 2)
        size = face_size(TEMPLATE_RESOLUTION)
        side, (x, y) = round(FACE_SIDE * size[1]), FACE_CENTRE
        places = [(round(x * size[0] + (a - 0.5) * side), round(y * size[1] + (b - 0.5) * side)) for a, b in SHIFTS]
        squares = np.array([(*place, side) for place in places])  # n 3, around the same place in every crop
        upright = [cv2.resize(face.numpy(), size, interpolation=cv2.INTER_AREA) for face in faces]  # in the proportions of the picture
        crops = np.stack([cut_square(face, square) for face in upright for square in squares])  # n 48 48 3
        inputs = (torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() - 127.5) / 128
        with one_thread():
            shifts, points, scores = (output.cpu().numpy() for output in self.network(inputs))
        places = from_squares(np.tile(squares, (len(faces), 1)), shifts, points)[1].reshape(len(faces), len(squares), -1, 2)
        corners = places.mean(axis=1)[:, CORNER_POINTS] / np.array(size)
        corners[scores[:, 1].reshape(len(faces), -1).mean(axis=1) < MIN_FOLLOW_SCORE] = np.nan
        return torch.from_numpy(corners.astype(np.float32))


def build_points(checkpoints: Path, network: Path | None = None, device: torch.device | str = "cpu") -> PointFinder:
    """The first that is there: face-alignment's files, a landmark network's, MTCNN. Raises WeightsError where they cannot be used."""
    boxes, landmarks = (checkpoints / WEIGHTS[name].path for name in ("s3fd", "2dfan4"))
    if boxes.is_file() and landmarks.is_file():
        from latentsync.faces.detector import FanDetector  # takes seconds to import

        return LandmarkPoints(FanDetector(boxes, landmarks, device))
    if network is not None:
        return NetworkPoints(load_landmark_network(network).to(device).eval())
    return CornerPoints(device)


class Lmd(Metric):
    """Landmark distance (Chen et al., ECCV 2018, without their normalisation)."""

    name = "lmd"
    columns = (Column("lmd_px", "px", "low", 2), Column("lmd_share", "face widths", "low", 4))
    reconstructions_only = True

    def __init__(self, finder: PointFinder) -> None:
        self.finder = finder
        self.protocol = (
            f"Mean distance of the mouth's landmarks of generated and source on aligned faces: {finder.name}; in pixels of an aligned face "
            f"of {TEMPLATE_RESOLUTION} pixels a side, and as a share of that side, which is about the width of the face. "
            f"{RECONSTRUCTION_ALONE}"
        )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Distances of faces with a mouth in both, in both units: n 2."""
        distances = (self.finder.find(chunk.faces) - self.finder.find(chunk.source_faces)).norm(dim=-1).mean(-1).double()  # k
        return distances[distances.isfinite(), None].numpy() * (TEMPLATE_RESOLUTION, 1)


class Silence(Metric):
    """Whether the lips rest in pauses of the sound, by a finder of the 20 points of outer and inner lips."""

    name = "silence"
    columns = (Column("silence_open", better="low"),)

    def __init__(self, finder: PointFinder) -> None:
        self.finder = finder
        self.protocol = (
            f"Mean opening of the inner lips in silence over that in speech, by {finder.name}. The level of a frame is that of the sound's "
            f"{SAMPLES} samples at {AUDIO_SAMPLE_RATE} Hz; speech is from {SPEECH_DB:.0f} dB of the {LOUD}th percentile of levels on, "
            f"silence up to {SILENCE_DB:.0f} dB and at least {MARGIN} frames away from anything louder. "
            f"None without {FEWEST} frames of either: 0 is a mouth that closes, 1 one that pays no attention."
        )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Number of the frame and opening of its lips, for each face that shows them: n 2."""
        openings = lip_gaps(self.finder.find(chunk.faces)).mean(-1).double().numpy()
        return np.stack([chunk.numbers, openings], 1)[np.isfinite(openings)]

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        """Raises InputError where there is no sound, or no face."""
        numbers, openings = require_faces(rows).T
        return {"silence_open": opening_in_silence(numbers.astype(int), openings, frame_levels(case.audio))}


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
    silent = binary_erosion(quiet, np.ones(2 * MARGIN + 1), border_value=1)  # before a sound and after it is silence
    return silent, levels >= loud * 10 ** (SPEECH_DB / 20)


def opening_in_silence(numbers: Sequence[int] | np.ndarray, openings: Sequence[float] | np.ndarray, levels: np.ndarray) -> float | None:
    """Mean opening in silence over that in speech, of frames with these `numbers`; `levels`: the sound in all frames. None: too few."""
    silent, spoken = silent_and_spoken(levels)
    numbers, openings = np.asarray(numbers), np.asarray(openings)
    known = numbers < len(levels)
    rest, speech = (openings[known][which[numbers[known]]] for which in (silent, spoken))
    if min(len(rest), len(speech)) < FEWEST or not speech.mean() > 0:
        return None
    return float(rest.mean() / speech.mean())
