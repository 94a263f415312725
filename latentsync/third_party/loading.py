"""Files of published networks -> networks that are ready and frozen; used by the networks of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from latentsync.weights import load_strict, read_state_dict

_COUNTER = ".num_batches_tracked"  # of batch norm: used by training alone, and absent from files older than PyTorch 0.4.1
Network = TypeVar("Network", bound=nn.Module)


def load_frozen(build: Callable[[], Network], path: Path | str, hint: str) -> Network:
    """The network of a file, float32 on the CPU, in evaluation mode, none of its weights trainable.

    Args:
        build: makes the network without weights.
        path: a torch or safetensors file with the weights under "state_dict", or bare.
        hint: what to do about a file that does not fit; ends the sentence.

    Raises:
        WeightsError: the file is missing, unreadable, or holds another network.
    """
    weights, _ = read_state_dict(path)
    with torch.device("meta"):
        network = build()
    counters = {key: torch.tensor(0) for key in network.state_dict() if key.endswith(_COUNTER)}
    load_strict(network, {**counters, **weights}, path, hint, assign=True)
    return network.float().eval().requires_grad_(False)
