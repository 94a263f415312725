"""Image quality of aligned faces and of frames: SSIM, PSNR, LPIPS, jitter, identity, hyperIQA."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Numbers, Tally, check_features, load_torchscript, pearson
from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.errors import InputError
from latentsync.faces.alignment import face_size, one_thread
from latentsync.faces.mask import HIDDEN, to_pixels
from latentsync.losses.landmarks import LandmarkLoss
from latentsync.losses.lpips import LowerHalfLPIPS, load_lpips
from latentsync.media.video_reader import VideoReader
from latentsync.models.landmark_network import LandmarkNetwork, MouthLandmarks, measure
from latentsync.third_party.hyperiqa import SIDE, HyperNet, chosen_frames

FACES_AT_ONCE = 16  # faces that go through a network together
CLOSED_CM = 0.02  # lips less far apart than this count as closed
SPEECH_SHARES = (5, 95)  # percentiles of the opening between which speech moves the lips
MOST_PSNR = 100.0  # decibels, said of pictures that are the same


class PixelDifference(NamedTuple):
    """How far the pixels of two mouths are apart."""

    l1: float  # mean absolute difference, grey levels
    psnr: float  # decibels, of the mean squared difference


class SpeechRange(NamedTuple):
    """Readings of the opening between which lips move, in units of the face's side."""

    closed: float  # mean reading of lips that truly are closed
    low: float
    high: float

    def share(self, opening: np.ndarray) -> np.ndarray:
        """Openings as shares of the range, 0 where lips are closed."""
        return (opening - self.closed) / (self.high - self.low)


class Appearance(NamedTuple):
    """A distance of how mouths look, and its name."""

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]  # pixels 1 f 3 h w of both -> a scalar, a mean over frames


@torch.no_grad()
def read_mouths(reader: LandmarkNetwork, faces: Tensor) -> MouthLandmarks:
    """The mouths on aligned faces uint8 f h w 3, on the CPU; points float32 f 20 2 in units of the face's side."""
    device = next(reader.parameters()).device
    return measure(torch.cat([reader(to_pixels(part.to(device))).points.cpu() for part in faces.split(FACES_AT_ONCE)]))


def landmark_distance(points: Tensor, true: Tensor) -> float:
    """LMD: mean distance of the points of two mouths, f 20 2 each, in their unit (Chen et al., ECCV 2018, without a normalisation)."""
    return float((points - true).norm(dim=-1).mean())


def landmark_jitter(points: Tensor) -> float:
    """Mean length of the second difference along time of points f 20 2; 0 for fewer than three frames."""
    return float(points.diff(n=2, dim=0).norm(dim=-1).mean()) if len(points) > 2 else 0.0


def mouth_box(resolution: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the mouth on an aligned face: that of the outline of the mask of the mouth alone."""
    (outline,) = HIDDEN["mask3"]
    columns, rows = (sorted(values) for values in zip(*outline, strict=True))
    scale = resolution / TEMPLATE_RESOLUTION
    return slice(int(rows[0] * scale), int((rows[-1] + 1) * scale)), slice(int(columns[0] * scale), int((columns[-1] + 1) * scale))


def pixel_difference(faces: Tensor, true: Tensor) -> PixelDifference:
    """Of the mouth boxes of aligned faces uint8 f h w 3."""
    apart = _boxes(faces) - _boxes(true)
    error = float(apart.double().square().mean())
    psnr = 10 * float(np.log10(255**2 / error)) if error > 0 else MOST_PSNR
    return PixelDifference(float(apart.abs().mean()), min(psnr, MOST_PSNR))


def pixel_jitter(faces: Tensor) -> float:
    """Mean absolute second difference along time of the mouth boxes of uint8 f h w 3, grey levels; 0 for fewer than three frames."""
    return float(_boxes(faces).diff(n=2, dim=0).abs().mean()) if len(faces) > 2 else 0.0


def opening_follows(gap: Tensor, true: Tensor) -> float | None:
    """Pearson's r of the read and the true opening along a clip, both n; None where the true lips do not move."""
    return float(pearson(gap, true)) if float(true.std(correction=0)) > 0 else None


def speech_range(openings: np.ndarray, closed: np.ndarray) -> SpeechRange | None:
    """The range of pooled openings, and the reading of closed lips; None where lips were never closed, or nothing moved."""
    if not len(closed) or not len(openings):
        return None
    low, high = np.percentile(openings, SPEECH_SHARES)
    return SpeechRange(float(np.mean(closed)), float(low), float(high)) if high > low else None


@torch.no_grad()
def appearance_distance(appearance: Appearance, faces: Tensor, true: Tensor, device: torch.device | str = "cpu") -> float:
    """Mean distance over the frames of aligned faces uint8 f h w 3."""
    parts = zip(faces.split(FACES_AT_ONCE), true.split(FACES_AT_ONCE), strict=True)
    sums = [
        len(seen) * float(appearance.distance(to_pixels(seen.to(device))[None], to_pixels(real.to(device))[None])) for seen, real in parts
    ]
    return sum(sums) / len(faces)


def make_appearance(reader: LandmarkNetwork, vgg16: Path | None, device: torch.device | str = "cpu") -> Appearance:
    """LPIPS of the lower half where the file of VGG-16 is at hand, else the distance of the reader's features that stands in for it.

    Raises WeightsError where the file is there and no VGG-16.
    """
    if vgg16 is not None:
        return Appearance("LPIPS (VGG-16, lower half)", load_lpips(vgg16).to(device))
    loss = LandmarkLoss(reader)
    return Appearance("features of the mouth reader, standing in for LPIPS", lambda seen, real: loss(seen, real).landmark_feature)


def _boxes(faces: Tensor) -> Tensor:
    """Mouth boxes of uint8 f h w 3, as float32."""
    rows, columns = mouth_box(faces.shape[1])
    return faces[:, rows, columns].float()


LARGEST = 255.0  # grey level
SSIM_SIDE, SSIM_SIGMA = 11, 1.5  # pixels: window of SSIM
SSIM_CONSTANTS = ((0.01 * LARGEST) ** 2, (0.03 * LARGEST) ** 2)
RIM = SSIM_SIDE // 2  # pixels at the edge of a picture around which no whole window lies
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (Rec. 601)
RECONSTRUCTION_ALONE = "Of reconstructions alone: with other words the mouth should differ."


class NothingTally:
    """A video of which a measure says nothing."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    def add(self, chunk: Chunk) -> None:
        """Nothing."""

    def finish(self) -> Numbers:
        return dict.fromkeys(column.name for column in self._columns)


class Ssim:
    """A `Measure`: structural similarity (Wang et al., IEEE Transactions on Image Processing 13, 2004)."""

    name = "ssim"
    columns = (Column("ssim_face", better="high"), Column("ssim_mouth", better="high"))
    protocol = (
        f"SSIM of the luma of aligned faces of made and source, Gaussian windows of {SSIM_SIDE} x {SSIM_SIDE} pixels (sigma {SSIM_SIGMA}) "
        "that lie whole in the face; mean over the face, over windows around the pixels of the mouth box, and over frames. "
        + RECONSTRUCTION_ALONE
    )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _SsimTally() if case.kind == "reconstruction" else NothingTally(self.columns)


class _SsimTally:
    """One video: sums over frames."""

    def __init__(self) -> None:
        self._sums, self._count = np.zeros(2), 0

    def add(self, chunk: Chunk) -> None:
        for face, source in zip(chunk.faces, chunk.source_faces, strict=True):
            similarity = ssim_map(luma(face), luma(source))
            rows, columns = (slice(max(part.start - RIM, 0), part.stop - RIM) for part in mouth_box(len(face)))
            self._sums += similarity.mean(), similarity[rows, columns].mean()
            self._count += 1

    def finish(self) -> Numbers:
        face, mouth = self._sums / require_faces(self._count)
        return {"ssim_face": float(face), "ssim_mouth": float(mouth)}


class Psnr:
    """A `Measure`: peak signal to noise ratio."""

    name = "psnr"
    columns = (Column("psnr_face", "dB", "high", 2), Column("psnr_mouth", "dB", "high", 2))
    protocol = (
        "PSNR of aligned faces of made and source, RGB, of the squared difference averaged over all frames of a video; "
        f"{MOST_PSNR:.0f} dB where nothing differs. {RECONSTRUCTION_ALONE}"
    )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _PsnrTally() if case.kind == "reconstruction" else NothingTally(self.columns)


class _PsnrTally:
    """One video: sums of squares and numbers of values, of faces and of mouth boxes."""

    def __init__(self) -> None:
        self._squares, self._values = np.zeros(2), np.zeros(2)

    def add(self, chunk: Chunk) -> None:
        if not len(chunk.faces):
            return
        rows, columns = mouth_box(chunk.faces.shape[1])
        squares = (chunk.faces.float() - chunk.source_faces.float()).square_()  # k R R 3
        parts = squares, squares[:, rows, columns]
        self._squares += [float(part.sum(dtype=torch.float64)) for part in parts]
        self._values += [part.numel() for part in parts]

    def finish(self) -> Numbers:
        require_faces(int(self._values[0]))
        face, mouth = (decibels(error) for error in self._squares / self._values)
        return {"psnr_face": face, "psnr_mouth": mouth}


class Lpips:
    """A `Measure`: learned perceptual similarity (arXiv 1801.03924).

    Args:
        network: see `latentsync.losses.lpips.load_lpips`.
        device: where it is.
    """

    name = "lpips"
    columns = (Column("lpips", better="low", digits=4),)
    protocol = (
        "LPIPS (VGG-16, linear layers of version 0.1) of the lower halves of aligned faces of made and source, mean over frames. "
        + RECONSTRUCTION_ALONE
    )

    def __init__(self, network: LowerHalfLPIPS, device: torch.device | str = "cpu") -> None:
        self.appearance, self.device = Appearance(self.name, network), device

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _LpipsTally(self) if case.kind == "reconstruction" else NothingTally(self.columns)


class _LpipsTally:
    """One video: the sum over frames."""

    def __init__(self, measure: Lpips) -> None:
        self._measure, self._sum, self._count = measure, 0.0, 0

    def add(self, chunk: Chunk) -> None:
        count, pair = len(chunk.faces), (chunk.faces, chunk.source_faces)
        if not count:
            return
        same = pair[0] is pair[1]  # the source beside itself
        self._sum += 0.0 if same else count * appearance_distance(self._measure.appearance, *pair, self._measure.device)
        self._count += count

    def finish(self) -> Numbers:
        return {"lpips": self._sum / require_faces(self._count)}


class Jitter:
    """A `Measure`: how restless the mouth is along time, against the source."""

    name = "jitter"
    columns = (Column("jitter"),)
    protocol = (
        "Mean absolute second difference along time of the pixels of the mouth box of aligned faces, made over source: 1 is as restless as "
        "the source, less is stiffer or smoother, more trembles. None where the mouth of the source does not move at all."
    )

    def open(self, case: Case) -> Tally:
        """Begin with a video."""
        return _JitterTally()


class _JitterTally:
    """One video: sums of differences, and the mouth boxes of the last two faces."""

    def __init__(self) -> None:
        self._made, self._source, self._count = 0.0, 0.0, 0
        self._last: list[tuple[int, Tensor, Tensor]] = []  # frame, mouth boxes of both

    def add(self, chunk: Chunk) -> None:
        rows, columns = mouth_box(chunk.faces.shape[1])
        numbers = np.flatnonzero(chunk.has_face) + chunk.start
        for number, face, source in zip(numbers.tolist(), chunk.faces, chunk.source_faces, strict=True):
            if self._last and self._last[-1][0] != number - 1:
                self._last.clear()
            self._last.append((number, face[rows, columns].float(), source[rows, columns].float()))
            if len(self._last) == 3:
                (_, *first), (_, *second), (_, *third) = self._last
                made, real = (float((a - 2 * b + c).abs().mean()) for a, b, c in zip(first, second, third, strict=True))
                self._made, self._source, self._count = self._made + made, self._source + real, self._count + 1
                self._last.pop(0)

    def finish(self) -> Numbers:
        if not self._count:
            raise InputError("No three successive frames show a face: measure longer videos")
        if self._source == 0:
            return {"jitter": 1.0 if self._made == 0 else None}
        return {"jitter": self._made / self._source}


def luma(face: Tensor) -> np.ndarray:
    """The luma of a face uint8 h w 3, float32 h w in [0, 255]."""
    return face.numpy().astype(np.float32) @ np.array(LUMA, np.float32)


def ssim_map(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """SSIM (Wang et al. 2004, equation 13) of every whole window of two pictures float32 h w in [0, 255]; h - 10, w - 10.

    Raises InputError where the pictures are smaller than a window.
    """
    if min(picture.shape) < SSIM_SIDE:
        raise InputError(
            f"SSIM looks at windows of {SSIM_SIDE} pixels a side and the faces have {min(picture.shape)}: use a larger resolution"
        )
    one, two = picture.astype(np.float64), other.astype(np.float64)
    with one_thread():
        mean, other_mean, square, other_square, product = (_window_means(part) for part in (one, two, one * one, two * two, one * two))
    spread, other_spread, together = square - mean * mean, other_square - other_mean * other_mean, product - mean * other_mean
    light, contrast = SSIM_CONSTANTS
    above = (2 * mean * other_mean + light) * (2 * together + contrast)
    return above / ((mean * mean + other_mean * other_mean + light) * (spread + other_spread + contrast))


def _window_means(picture: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(picture, (SSIM_SIDE, SSIM_SIDE), SSIM_SIGMA)
    return blurred[RIM:-RIM, RIM:-RIM]


def decibels(error: float) -> float:
    """A mean squared difference of grey levels as PSNR."""
    return min(float(10 * np.log10(LARGEST**2 / error)), MOST_PSNR) if error > 0 else MOST_PSNR


def require_faces(count: int) -> int:
    """The count itself. Raises InputError where it is 0."""
    if count == 0:
        raise InputError("No frame shows a face that could be measured: leave the video out")
    return count


FACE_SIDE = 112  # pixels of the faces that networks of identity look at
FACE_SCALE, FACE_SHIFT = 86.7, (12.5, 20.4)  # crop -> such a face: pixels per width of the crop, then pixels to the right and down
ORIGIN = (
    "a TorchScript file of a network like ArcFace (arXiv 1801.07698) that takes RGB faces b 3 112 112 in [-1, 1] and gives embeddings b d"
)


class Identity:
    """A `Measure`.

    Args:
        network: see `load_identity`.
        source: what the network is, in words, such as the name of its file.
        device: where it is.
    """

    name = "identity"
    columns = (Column("identity", better="high"),)

    def __init__(self, network: torch.nn.Module, source: str, device: torch.device | str = "cpu") -> None:
        self.network, self.device = network, device
        self.protocol = (
            f"Cosine of the embeddings of the faces of made and source by the network of the file {source}, mean over frames. Faces are "
            f"cut from the frames to {FACE_SIDE} x {FACE_SIDE} pixels by the transforms of the alignment, so that eyes, nose and "
            "mouth lie where ArcFace wants them on average."
        )

    def open(self, case: Case) -> "_IdentityTally":
        """Begin with a video."""
        return _IdentityTally(self)

    @torch.inference_mode()
    def embed(self, faces: Tensor) -> Tensor:
        """Unit vectors float64 n d of faces uint8 n 112 112 3."""
        pixels = (faces.permute(0, 3, 1, 2).to(self.device).float() - 127.5) / 127.5
        return F.normalize(check_features(self.network(pixels), len(faces), ORIGIN), dim=-1)


class _IdentityTally:
    """One video: the sum over frames."""

    def __init__(self, measure: Identity) -> None:
        self._measure, self._sum, self._count = measure, 0.0, 0

    def add(self, chunk: Chunk) -> None:
        if not len(chunk.matrices):
            return
        resolution = chunk.faces.shape[1]
        made, source = (
            self._measure.embed(
                torch.stack([known_face(*pair, resolution) for pair in zip(frames[chunk.has_face], chunk.matrices, strict=True)])
            )
            for frames in (chunk.frames, chunk.source_frames)
        )
        self._sum, self._count = self._sum + float((made * source).sum()), self._count + len(made)

    def finish(self) -> Numbers:
        return {"identity": self._sum / require_faces(self._count)}


def known_face(frame: np.ndarray, matrix: Tensor, resolution: int) -> Tensor:
    """A face uint8 112 112 3 of a frame uint8 h w 3, by the transform 2 3 that aligns it."""
    scale = FACE_SCALE / face_size(resolution)[0]
    whole = matrix.double().numpy() * scale + np.array([[0, 0, FACE_SHIFT[0]], [0, 0, FACE_SHIFT[1]]])
    return torch.from_numpy(cv2.warpAffine(frame, whole, (FACE_SIDE, FACE_SIDE), flags=cv2.INTER_LINEAR))


def load_identity(path: Path | str, device: torch.device | str = "cpu") -> torch.nn.Module:
    """A network of identities. Raises WeightsError: the file is missing, or no TorchScript."""
    return load_torchscript(path, ORIGIN, device=device)


class HyperIqa:
    """A `Measure`: hyperIQA's opinion of a video, as the data pipeline asks for it.

    Args:
        network: see `latentsync.third_party.hyperiqa.load_hyperiqa`; where it is, it computes.
    """

    name = "hyperiqa"
    columns = (Column("hyperiqa", better="high", digits=1),)
    protocol = (
        f"hyperIQA (koniq_pretrained.pkl), 0 to 100, of the middle {SIDE} x {SIDE} pixels of the first, middle and last frame; mean of "
        "the three. Nothing but these frames of the video is looked at, and no source."
    )

    def __init__(self, network: HyperNet) -> None:
        self.network = network

    def open(self, case: Case) -> "_HyperIqaTally":
        """Begin with a video."""
        return _HyperIqaTally(self.network, case.video)


class _HyperIqaTally:
    """One video: how many frames it has. Which are judged is known at its end, so these are read again then."""

    def __init__(self, network: HyperNet, video: Path) -> None:
        self._network, self._video, self._count = network, video, 0

    def add(self, chunk: Chunk) -> None:
        self._count += len(chunk.frames)

    def finish(self) -> Numbers:
        if not self._count:
            raise InputError(f"{self._video} shows no frame that could be judged: leave it out")
        source = VideoReader(self._video)
        frames = [frame for number in chosen_frames(self._count) for frame in source.frames(number, number + 1)]
        return {"hyperiqa": self._network.score(frames)}
