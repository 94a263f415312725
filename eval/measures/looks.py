"""Measures by networks that look at whole pictures: "identity", whether the person is the same, and "hyperiqa", how good it looks."""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.measures.measure import Case, Chunk, Column, Numbers
from eval.measures.pictures import require_faces
from eval.measures.torchscript import check_features, load_torchscript
from latentsync.errors import InputError
from latentsync.faces.align import face_size
from latentsync.media.video import VideoSource
from latentsync.third_party.hyperiqa import SIDE, HyperNet, chosen_frames

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
        source = VideoSource(self._video)
        frames = [frame for number in chosen_frames(self._count) for frame in source.frames(number, number + 1)]
        return {"hyperiqa": self._network.score(frames)}
