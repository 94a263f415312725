"""Image quality of aligned faces and of frames: SSIM, PSNR, LPIPS, jitter, identity, hyperIQA."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Metric, Numbers, check_features, load_torchscript
from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.errors import InputError
from latentsync.faces.alignment import face_size
from latentsync.faces.mask import HIDDEN, to_pixels
from latentsync.losses.lpips import LowerHalfLPIPS
from latentsync.media.video_reader import VideoReader
from latentsync.third_party.hyperiqa import SIDE, HyperNet, chosen_frames

LARGEST = 255.0  # grey level
MOST_PSNR = 100.0  # decibels, of pictures that are the same
SSIM_SIDE, SSIM_SIGMA = 11, 1.5  # pixels: window of SSIM
RIM = SSIM_SIDE // 2  # pixels at the edge of a picture around which no whole window lies
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (Rec. 601)
FACES_AT_ONCE = 16  # faces that go through a network together
FACE_SIDE = 112  # pixels of the faces that identity networks are given
FACE_SCALE, FACE_SHIFT = 86.7, (12.5, 20.4)  # crop -> such a face: pixels per width of the crop, then pixels to the right and down
IDENTITY = (
    "a TorchScript file of a network like ArcFace (arXiv 1801.07698) that takes RGB faces b 3 112 112 in [-1, 1] and gives embeddings b d"
)
RECONSTRUCTION_ALONE = "Of reconstructions alone: with other words the mouth should differ."
load_identity = partial(load_torchscript, origin=IDENTITY)


def mouth_box(resolution: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the mouth on an aligned face: that of the outline of the mask of the mouth alone."""
    (outline,) = HIDDEN["mask3"]
    columns, rows = (sorted(values) for values in zip(*outline, strict=True))
    scale = resolution / TEMPLATE_RESOLUTION
    return slice(int(rows[0] * scale), int((rows[-1] + 1) * scale)), slice(int(columns[0] * scale), int((columns[-1] + 1) * scale))


def mouths(faces: Tensor) -> Tensor:
    """The mouth boxes of aligned faces uint8 f h w 3, as float32."""
    rows, columns = mouth_box(faces.shape[1])
    return faces[:, rows, columns].float()


class Ssim(Metric):
    """Structural similarity (Wang et al., IEEE Transactions on Image Processing 13, 2004), by scikit-image."""

    name = "ssim"
    columns = (Column("ssim_face", better="high"), Column("ssim_mouth", better="high"))
    reconstructions_only = True
    protocol = (
        f"SSIM of the luma of aligned faces of generated and source, Gaussian windows of {SSIM_SIDE} x {SSIM_SIDE} pixels (sigma "
        f"{SSIM_SIGMA}) that lie whole in the face; mean over the face, over windows around the pixels of the mouth box, and over frames. "
        + RECONSTRUCTION_ALONE
    )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """SSIM of face and of mouth: k 2."""
        rows = np.empty((len(chunk.faces), 2))
        box = tuple(slice(max(part.start - RIM, 0), part.stop - RIM) for part in mouth_box(chunk.faces.shape[1]))
        for row, face, source in zip(rows, chunk.faces, chunk.source_faces, strict=True):
            similarity = ssim_map(luma(face), luma(source))
            row[:] = similarity.mean(), similarity[box].mean()
        return rows


def luma(face: Tensor) -> np.ndarray:
    """The luma of a face uint8 h w 3, float64 h w in [0, 255]."""
    return (face.numpy().astype(np.float32) @ np.array(LUMA, np.float32)).astype(np.float64)


def ssim_map(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """SSIM (equation 13) of all whole windows of pictures float64 h w in [0, 255]: h - 10, w - 10. InputError: smaller than a window."""
    if min(picture.shape) < SSIM_SIDE:
        raise InputError(
            f"SSIM takes windows of {SSIM_SIDE} pixels a side and the faces have {min(picture.shape)}: use a larger resolution"
        )
    published = {"gaussian_weights": True, "sigma": SSIM_SIGMA, "use_sample_covariance": False, "data_range": LARGEST}
    return structural_similarity(picture, other, full=True, **published)[1][RIM:-RIM, RIM:-RIM]


class Psnr(Metric):
    """Peak signal to noise ratio."""

    name = "psnr"
    columns = (Column("psnr_face", "dB", "high", 2), Column("psnr_mouth", "dB", "high", 2))
    reconstructions_only = True
    protocol = (
        "PSNR of aligned faces of generated and source, RGB, of the squared difference averaged over all frames of a video; "
        f"{MOST_PSNR:.0f} dB where nothing differs. {RECONSTRUCTION_ALONE}"
    )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Mean squared differences of face and of mouth, grey levels: k 2."""
        squares = (chunk.faces.float() - chunk.source_faces.float()).square_()  # k R R 3
        return torch.stack([part.double().mean((1, 2, 3)) for part in (squares, mouths(squares))], 1).numpy()

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        return {name: decibels(error) for name, error in super().of_video(case, rows).items()}


def decibels(error: float) -> float:
    """A mean squared difference of grey levels as PSNR."""
    return min(float(10 * np.log10(LARGEST**2 / error)), MOST_PSNR) if error > 0 else MOST_PSNR


@torch.no_grad()
def appearance_distance(
    network: Callable[[Tensor, Tensor], Tensor], faces: Tensor, reference: Tensor, device: torch.device | str = "cpu"
) -> float:
    """Mean perceptual distance over the frames of aligned faces uint8 f h w 3, by a network of pixels 1 f 3 h w."""
    total = 0.0
    for pair in zip(faces.split(FACES_AT_ONCE), reference.split(FACES_AT_ONCE), strict=True):
        total += len(pair[0]) * float(network(*(to_pixels(part.to(device))[None] for part in pair)))
    return total / len(faces)


class Lpips(Metric):
    """Learned perceptual similarity (arXiv 1801.03924)."""

    name = "lpips"
    columns = (Column("lpips", better="low", digits=4),)
    reconstructions_only = True
    protocol = (
        "LPIPS (VGG-16, linear layers of version 0.1) of the lower halves of aligned faces of generated and source, mean over frames. "
        + RECONSTRUCTION_ALONE
    )

    def __init__(self, network: LowerHalfLPIPS, device: torch.device | str = "cpu") -> None:
        self.network, self.device = network, device

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """The mean distance of these frames, once for each of them: k 1."""
        count, same = len(chunk.faces), chunk.faces is chunk.source_faces  # the source beside itself
        distance = 0.0 if same or not count else appearance_distance(self.network, chunk.faces, chunk.source_faces, self.device)
        return np.full((count, 1), distance)


class Jitter(Metric):
    """How restless the mouth is along time, against the source."""

    name = "jitter"
    columns = (Column("jitter"),)
    protocol = (
        "Mean absolute second difference along time of the pixels of the mouth box of aligned faces, generated over source: 1 is as "
        "restless as the source, less is stiffer or smoother, more trembles. None where the mouth of the source does not move at all."
    )

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Differences of both for each third of three successive frames with a face: n 2. Carries the last two frames."""
        numbers, boxes = chunk.numbers, torch.stack([mouths(chunk.faces), mouths(chunk.source_faces)])  # 2 k h w 3
        if carried:
            numbers, boxes = np.concatenate([carried[0], numbers]), torch.cat([carried[1], boxes], 1)
        carried[:] = numbers[-2:], boxes[:, -2:]
        return boxes.diff(n=2, dim=1).abs().mean((2, 3, 4)).double().T.numpy()[numbers[2:] - numbers[:-2] == 2]

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        if not len(rows):
            raise InputError("No three successive frames show a face: measure longer videos")
        generated, source = rows.sum(0).tolist()
        if source == 0:
            return {"jitter": 1.0 if generated == 0 else None}
        return {"jitter": generated / source}


class Identity(Metric):
    """Likeness of the person by the network of a file with the name `source`."""

    name = "identity"
    columns = (Column("identity", better="high"),)

    def __init__(self, network: torch.nn.Module, source: str, device: torch.device | str = "cpu") -> None:
        self.network, self.device = network, device
        self.protocol = (
            f"Cosine of the embeddings of the faces of generated and source by the network of the file {source}, mean over frames. Faces "
            f"are cut from the frames to {FACE_SIDE} x {FACE_SIDE} pixels by the transforms of the alignment, so that eyes, nose and "
            "mouth lie where ArcFace wants them on average."
        )

    @torch.no_grad()
    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """Cosines: k 1."""
        if not len(chunk.matrices):
            return np.empty((0, 1))
        resolution, embeddings = chunk.faces.shape[1], []
        for frames in (chunk.frames, chunk.source_frames):
            pairs = zip(frames[chunk.has_face], chunk.matrices, strict=True)
            faces = torch.stack([identity_face(*pair, resolution) for pair in pairs])  # k 112 112 3
            pixels = (faces.permute(0, 3, 1, 2).to(self.device).float() - 127.5) / 127.5
            embeddings.append(F.normalize(check_features(self.network(pixels), len(faces), IDENTITY), dim=-1))
        return (embeddings[0] * embeddings[1]).sum(1, keepdim=True).numpy()


def identity_face(frame: np.ndarray, matrix: Tensor, resolution: int) -> Tensor:
    """A face uint8 112 112 3 of a frame uint8 h w 3, by the transform 2 3 that aligns it."""
    scale = FACE_SCALE / face_size(resolution)[0]
    whole = matrix.double().numpy() * scale + np.array([[0, 0, FACE_SHIFT[0]], [0, 0, FACE_SHIFT[1]]])
    return torch.from_numpy(cv2.warpAffine(frame, whole, (FACE_SIDE, FACE_SIDE), flags=cv2.INTER_LINEAR))


class HyperIqa(Metric):
    """Image quality without a reference, as the data pipeline measures it."""

    name = "hyperiqa"
    columns = (Column("hyperiqa", better="high", digits=1),)
    protocol = (
        f"hyperIQA (koniq_pretrained.pkl), 0 to 100, of the middle {SIDE} x {SIDE} pixels of the first, middle and last frame; mean of "
        "the three. Nothing but these frames of the video is looked at, and no source."
    )

    def __init__(self, network: HyperNet) -> None:
        self.network = network

    def of_chunk(self, chunk: Chunk, carried: list[Any]) -> np.ndarray:
        """A row for each frame, so that they are counted: f 0."""
        return np.empty((len(chunk.frames), 0))

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        """The score of three frames, which are read again now that the length is known."""
        if not len(rows):
            raise InputError(f"{case.video} shows no frame that could be measured: leave it out")
        video = VideoReader(case.video)
        frames = [frame for number in chosen_frames(len(rows)) for frame in video.frames(number, number + 1)]
        return {"hyperiqa": self.network.score(frames)}
