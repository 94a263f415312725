"""The measure "fvd": Frechet video distance (Unterthiner et al., arXiv 1812.01717) of faces, by the features of I3D."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from eval.measures.frechet import set_distance
from eval.measures.measure import Case, Chunk, Column
from eval.measures.torchscript import check_features, load_torchscript
from latentsync.faces.align import face_size
from latentsync.faces.warp import bounding_box
from latentsync.weights import WEIGHTS

Windows = Literal["one", "all"]

WINDOW = 16  # frames that I3D looks at together
FIRST = 20  # frame at which the one window of a video begins
SIDE = 224  # pixels of its pictures
ORIGIN = f"I3D trained on Kinetics-400 as TorchScript, {WEIGHTS['i3d'].origin}"
_SWITCHES = {"rescale": False, "resize": False, "return_features": True}

_WHICH = {
    "one": f"frames {FIRST} to {FIRST + WINDOW - 1} of each video; a video that shows no face in one of them is left out",
    "all": f"every {WINDOW} successive frames of each video that show a face, without overlap: more features than LatentSync's one "
    "window a video, so that the covariance has full rank, and therefore another number than published ones",
}


class Fvd:
    """A `SetMeasure`.

    Args:
        network: I3D, see `load_i3d`.
        windows: "one": one window of a video, as LatentSync measures; "all": all that do not overlap.
        device: where the network is.
    """

    def __init__(self, network: torch.nn.Module, windows: Windows = "one", device: torch.device | str = "cpu") -> None:
        self.network, self.windows, self.device = network, windows, device
        self.name = "fvd" if windows == "one" else "fvd_all"
        self.column = Column(self.name, better="low", digits=1)
        self.protocol = (
            f"Frechet distance of the features of I3D (TorchScript, rescale and resize off) of {_WHICH[windows]}. The box around the "
            f"aligned face, in the frame, is brought to {SIDE} x {SIDE} pixels by the area filter; RGB in [0, 1]."
        )

    def open(self, case: Case) -> "_WindowTally":
        """Begin with a video."""
        return _WindowTally(self)

    def compare(self, made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
        """See `SetMeasure`."""
        return set_distance(made, real)

    @torch.inference_mode()
    def look(self, pictures: np.ndarray) -> np.ndarray:
        """One window, uint8 16 224 224 3 -> features float64 1 d. Raises WeightsError where the network gives something else."""
        pixels = torch.from_numpy(pictures).to(self.device).float() / 255
        return check_features(self.network(pixels.permute(3, 0, 1, 2)[None], **_SWITCHES), 1, ORIGIN).numpy()  # n c t h w


class _WindowTally:
    """One video; holds the pictures of one window."""

    def __init__(self, measure: Fvd) -> None:
        self._measure = measure
        self._held: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(self, chunk: Chunk) -> None:
        matrices, resolution = iter(chunk.matrices), chunk.faces.shape[1]
        for number, (frame, has_face) in enumerate(zip(chunk.frames, chunk.has_face, strict=True), chunk.start):
            matrix = next(matrices) if has_face else None
            if self._measure.windows == "one" and not FIRST <= number < FIRST + WINDOW:
                continue
            picture = None if matrix is None else face_box_picture(frame, matrix, resolution)
            if picture is None:
                self._held.clear()
                continue
            self._held.append(picture)
            if len(self._held) == WINDOW:
                self._features.append(self._measure.look(np.stack(self._held)))
                self._held.clear()

    def finish(self) -> np.ndarray:
        return np.concatenate(self._features) if self._features else np.zeros((0, 0))


def face_box_picture(frame: np.ndarray, matrix: Tensor, resolution: int) -> np.ndarray | None:
    """The upright box around the aligned face in a frame uint8 h w 3, as uint8 224 224 3; None where it lies outside."""
    box = bounding_box(matrix, face_size(resolution), (frame.shape[1], frame.shape[0]), margin=0)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return cv2.resize(frame[y0:y1, x0:x1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def load_i3d(path: Path | str, device: torch.device | str = "cpu") -> torch.nn.Module:
    """I3D. Raises WeightsError: the file is missing, no TorchScript, or another network."""
    return load_torchscript(path, ORIGIN, _SWITCHES, device)
