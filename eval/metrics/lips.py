"""Lips: finders of their points, by FaceMesh too; landmark distance, how they move, opening in silence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from scipy.ndimage import binary_erosion
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Metric, Numbers, require_faces
from eval.metrics.image import FACES_AT_ONCE, RECONSTRUCTION_ALONE
from latentsync.constants import AUDIO_SAMPLE_RATE, TEMPLATE_RESOLUTION, VIDEO_FPS
from latentsync.faces.alignment import face_size
from latentsync.faces.detector import FaceDetector
from latentsync.faces.mask import to_pixels
from latentsync.faces.mesh import OUTER_EYES, POINTS_68, find_landmarks, square_around, square_in
from latentsync.media.audio import FULL_SCALE, SILENCE, AudioSamples
from latentsync.models.landmark_network import FIRST_POINT, POINTS, LandmarkNetwork, lip_gaps, load_landmark_network, measure
from latentsync.third_party.face_mesh import POINTS as MESH_POINTS
from latentsync.third_party.face_mesh import FaceMesh, load_face_mesh
from latentsync.weights import WEIGHTS

LAST_POINT = FIRST_POINT + POINTS
MESH_MOUTH = POINTS_68[FIRST_POINT:LAST_POINT]
OUTER_LIPS = 12  # of the 20, the first
MESH_ACROSS = (OUTER_EYES, (61, 291), (234, 454))  # eyes, mouth and cheeks: left and right in the picture
MESH_PICTURE = face_size(TEMPLATE_RESOLUTION)  # pixels: width and height of a face in the proportions of the picture
MESH_BOX = np.array([0.0, 10, 210, 228])  # x0 y0 x1 y1: where a face lies in it, about
MESH_SIZES = (0.94, 1.06)  # of the squares around landmarks in which it is looked for again, over the usual size
MESH_PRESENT = 0.0  # logit of presence from which there is a face: a detector has found it before
BORDER = 0.25  # of the crop's height: added around a face that fills its picture, so that a detector sees it whole
SAMPLES = AUDIO_SAMPLE_RATE // VIDEO_FPS  # of one frame
LOUD = 95  # percentile of the levels of frames that a sound's level is
SPEECH_DB, SILENCE_DB = (
    -15.0,
    -20.0,
)  # levels of frames against it: of speech from here on, of silence up to here (recordings in quiet rooms: -25 in pauses)
MARGIN = 3  # frames: lips move before a sound and after it, so silence begins and ends that much inside a pause
FEWEST = 5  # frames of either
FEWEST_FOR_R = 10  # frames that a correlation rests on
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


class MeshPoints(PointFinder):
    """20 points of FaceMesh's 468, at the places of points 48 to 67 of the 68."""

    name = "20 of FaceMesh's 468 points"

    def __init__(self, network: FaceMesh) -> None:
        self.network = network

    def locate(self, faces: Tensor) -> Tensor:
        return (find_mesh(self.network, faces)[:, MESH_MOUTH, :2] + 0.5) / torch.tensor(MESH_PICTURE)


def find_mesh(network: FaceMesh, faces: Tensor) -> Tensor:
    """All landmarks of aligned faces uint8 k R R 3: float32 k 468 3, pixels of the upright crop of 210 x 280; NaN where there is no face.

    Means of what is seen where alignment has put the face, and in two squares around it, which makes noise less (rendered heads: mean
    second difference of the opening 0.46 of its deviation, 0.54 by one look; the truth 0.42). What is found of one face does not depend
    on others.
    """
    found = [torch.empty(0, MESH_POINTS, 3)]
    for part in faces.split(FACES_AT_ONCE) if len(faces) else ():
        pictures = [cv2.resize(face.numpy(), MESH_PICTURE, interpolation=cv2.INTER_AREA) for face in part]
        points, presence = find_landmarks(network, pictures, [square_in(MESH_BOX)] * len(part))
        middles, looks = points.mean(1, keepdims=True), [points]
        for size in MESH_SIZES:
            around = (middles + size * (points - middles))[..., :2]
            again, presence = find_landmarks(network, pictures, [square_around(face) for face in around])
            looks.append(again)
        mean = np.mean(looks, axis=0)
        mean[presence < MESH_PRESENT] = np.nan
        found.append(torch.from_numpy(mean).float())
    return torch.cat(found)


class LipShapes(NamedTuple):
    """Lips and turn of n heads by FaceMesh, NaN where there is no face; opening and width over the distance of the outer eye corners."""

    opening: np.ndarray  # n, between the inner lips
    width: np.ndarray  # n, between the corners of the mouth
    yaw: np.ndarray  # n, degrees by which the head is turned to the right edge of the picture


def lip_shapes(mesh: Tensor) -> LipShapes:
    """Of landmarks k 468 3 in pixels, as `find_mesh` gives them."""
    mouth, across = measure(mesh[:, MESH_MOUTH, :2]), sum(mesh[:, right] - mesh[:, left] for left, right in MESH_ACROSS)  # k 3
    eyes = (mesh[:, OUTER_EYES[0], :2] - mesh[:, OUTER_EYES[1], :2]).norm(dim=-1)
    yaw = torch.rad2deg(torch.atan2(across[:, 2], across[:, 0]))
    return LipShapes(*(part.double().numpy() for part in (mouth.gap / eyes, mouth.width / eyes, yaw)))


def build_points(checkpoints: Path, network: Path | None = None, device: torch.device | str = "cpu") -> PointFinder:
    """The first that is there: face-alignment's files, a landmark network's, FaceMesh. Raises WeightsError where they cannot be used."""
    boxes, landmarks = (checkpoints / WEIGHTS[name].path for name in ("s3fd", "2dfan4"))
    if boxes.is_file() and landmarks.is_file():
        from latentsync.faces.detector import FanDetector  # takes seconds to import

        return LandmarkPoints(FanDetector(boxes, landmarks, device))
    if network is not None:
        return NetworkPoints(load_landmark_network(network).to(device).eval())
    return MeshPoints(load_face_mesh(device=device))


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


class Lips(Metric):
    """How the lips move, by a finder of the 20 points of outer and inner lips."""

    name = "lips"
    columns = (
        Column("lips_opening_r", better="high"),
        Column("lips_width_r", better="high"),
        Column("lips_range"),
        Column("lips_jitter"),
    )

    def __init__(self, finder: PointFinder) -> None:
        self.finder = finder
        self.protocol = (
            f"Opening of the inner lips and distance of the mouth's corners on aligned faces, by {finder.name}. lips_opening_r and "
            "lips_width_r: Pearson's r with those of the source along a video, of reconstructions alone; lips_range: standard deviation of "
            "the opening; lips_jitter: its mean absolute second difference along time; both over the source's: 1 moves as far and as "
            f"restlessly as the source. None with fewer than {FEWEST_FOR_R} frames that show a mouth in both, or where lips do not move."
        )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Number of the frame, opening and width of the lips, those of the source, for each face: n 5; NaN where there is no mouth."""
        both = [measure(self.finder.find(faces)) for faces in (chunk.faces, chunk.source_faces)]
        return np.stack([chunk.numbers, *(part.double().numpy() for mouth in both for part in (mouth.gap, mouth.width))], 1)

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        """Raises InputError where there is no face."""
        numbers = require_faces(rows)[:, 0].astype(int)
        tracks = np.full((numbers.max() + 1, 4), np.nan)
        tracks[numbers] = np.where(np.isfinite(rows).all(1, keepdims=True), rows[:, 1:], np.nan)
        opening, width, source_opening, source_width = tracks.T
        opening_r, jitter, alike = correlation(opening, source_opening), track_jitter(source_opening), case.kind == "reconstruction"
        return {
            "lips_opening_r": opening_r if alike else None,
            "lips_width_r": correlation(width, source_width) if alike else None,
            "lips_range": None if opening_r is None else track_range(opening) / track_range(source_opening),
            "lips_jitter": None if opening_r is None or not jitter else track_jitter(opening) / jitter,
        }


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


def lip_outlines(mesh: Tensor, resolution: int) -> np.ndarray:
    """Outlines of the outer lips, float64 k 12 2 in pixels of the aligned face, of landmarks k 468 3 as `find_mesh` gives them."""
    return ((mesh[:, MESH_MOUTH[:OUTER_LIPS], :2].double() + 0.5) / torch.tensor(MESH_PICTURE) * resolution - 0.5).numpy()


def correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson's r over the frames n that both have; None where they are fewer than `FEWEST_FOR_R`, or where one does not change."""
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    if len(one) < FEWEST_FOR_R or one.std() == 0 or other.std() == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def partial_correlation(one: np.ndarray, other: np.ndarray, known: np.ndarray) -> float | None:
    """Pearson's r of what a linear function of `known` leaves of the two, all n; None as `correlation`."""
    between, first, second = correlation(one, other), correlation(one, known), correlation(other, known)
    if between is None or first is None or second is None or max(abs(first), abs(second)) > 1 - 1e-9:
        return None
    return (between - first * second) / float(np.sqrt((1 - first**2) * (1 - second**2)))


def track_range(values: np.ndarray) -> float:
    """Standard deviation over the frames n that have a value."""
    return float(np.nanstd(values))


def track_jitter(values: np.ndarray) -> float | None:
    """Mean absolute second difference along time of values n; None where no three successive frames have one."""
    seconds = np.abs(np.diff(values, n=2))
    return float(np.nanmean(seconds)) if np.isfinite(seconds).any() else None


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
