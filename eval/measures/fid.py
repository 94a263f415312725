"""The measure "fid": Frechet inception distance (Heusel et al., arXiv 1706.08500) of aligned faces, by the features of Inception."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from eval.measures.frechet import set_distance
from eval.measures.measure import Case, Chunk, Column
from eval.measures.torchscript import check_features, load_torchscript
from latentsync.weights import WEIGHTS

ORIGIN = f"the Inception of the original FID as TorchScript, {WEIGHTS['inception'].origin}"
_SWITCHES = {"return_features": True}


class Fid:
    """A `SetMeasure`.

    Args:
        network: Inception, see `load_inception`.
        every: of how many frames one is looked at; neighbours hardly differ.
        device: where the network is.
    """

    name = "fid"
    column = Column("fid", better="low", digits=2)

    def __init__(self, network: torch.nn.Module, every: int = 1, device: torch.device | str = "cpu") -> None:
        self.network, self.every, self.device = network, every, device
        which = "all frames" if every == 1 else f"every {every}th frame, counted from the first,"
        self.protocol = (
            f"Frechet distance of the pooled features of Inception (TensorFlow's of 2015, as TorchScript, which resizes as the "
            f"original does) of the aligned faces of {which} that show a face."
        )

    def open(self, case: Case) -> "_FaceTally":
        """Begin with a video."""
        return _FaceTally(self)

    def compare(self, made: Sequence[np.ndarray], real: Sequence[np.ndarray]) -> float:
        """See `SetMeasure`."""
        return set_distance(made, real)


class _FaceTally:
    """One video."""

    def __init__(self, measure: Fid) -> None:
        self._measure = measure
        self._features: list[np.ndarray] = []

    @torch.inference_mode()
    def add(self, chunk: Chunk) -> None:
        numbers = np.flatnonzero(chunk.has_face) + chunk.start
        faces = chunk.faces[torch.from_numpy(numbers % self._measure.every == 0)]  # n R R 3
        if len(faces):
            pictures = faces.permute(0, 3, 1, 2).to(self._measure.device)  # n c h w, uint8
            self._features.append(check_features(self._measure.network(pictures, **_SWITCHES), len(faces), ORIGIN).numpy())

    def finish(self) -> np.ndarray:
        return np.concatenate(self._features) if self._features else np.zeros((0, 0))


def load_inception(path: Path | str, device: torch.device | str = "cpu") -> torch.nn.Module:
    """Inception. Raises WeightsError: the file is missing, no TorchScript, or another network."""
    return load_torchscript(path, ORIGIN, _SWITCHES, device)
