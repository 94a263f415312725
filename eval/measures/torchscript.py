"""Networks that come as TorchScript files: graph and weights in one, as the features of FVD, FID and of identities are passed around.

A TorchScript file is a program of tensor operations: take it from its authors alone.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from latentsync.errors import WeightsError, first_line


def load_torchscript(path: Path | str, origin: str, arguments: Iterable[str] = (), device: torch.device | str = "cpu") -> torch.nn.Module:
    """A network that is ready to be asked.

    Args:
        origin: which file it should be and where that comes from; ends the sentences.
        arguments: names that its `forward` must know.

    Raises:
        WeightsError: the file is missing, no TorchScript, or holds another network.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: get {origin}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is no longer developed; the published files are what they are
            network = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} is no TorchScript file ({first_line(error)[:80]}): get {origin}") from None
    known = {argument.name for argument in network.forward.schema.arguments}
    if unknown := sorted(set(arguments) - known):
        raise WeightsError(f"{path} holds another network, one that knows no {unknown[0]!r}: get {origin}")
    return network.eval()


def check_features(features: Tensor, count: int, origin: str) -> Tensor:
    """Features of `count` pictures or clips as float64 n d on the CPU. Raises WeightsError where they have another shape."""
    if features.ndim != 2 or len(features) != count:
        raise WeightsError(f"The network gave {list(features.shape)} for {count} inputs and not one row for each: get {origin}")
    return features.double().cpu()
