"""The recipe behind the reference numbers in `tests/golden`: seeded weights, seeded inputs, digests that prove both."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
Network = TypeVar("Network", bound=torch.nn.Module)


def load_case(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The sidecar and the tensors of one case."""
    return json.loads((GOLDEN / f"{name}.json").read_text()), load_file(GOLDEN / f"{name}.safetensors")


def is_analytic(key: str) -> bool:
    """Tables that the constructor computes and the recipe leaves alone."""
    return key.endswith(".pe") or key in {"encoder.positional_embedding", "scaling_layer.shift", "scaling_layer.scale"}


def seeded_state_dict(state_dict: dict[str, torch.Tensor], seed: int, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights drawn key by key in sorted order from one numpy `RandomState(seed)`; nothing stays at zero."""
    rs = np.random.RandomState(seed)
    return {key: draw(rs, key, value, gain) for key, value in sorted(state_dict.items())}


def draw(rs: np.random.RandomState, key: str, value: torch.Tensor, gain: float) -> torch.Tensor:
    """One entry: scale by fan-in for weights, around 1 for norm gains and variances, small for biases."""
    if is_analytic(key):
        return value
    if not value.is_floating_point():
        return torch.zeros(value.shape, dtype=value.dtype)  # also where the network was built without memory
    z, leaf, shape = rs.standard_normal(size=tuple(value.shape)), key.rsplit(".", 1)[-1], tuple(value.shape)
    if leaf == "running_var":
        z = 0.5 + np.abs(z)
    elif leaf == "running_mean":
        z = 0.1 * z
    elif len(shape) >= 2:
        z = z * gain / np.sqrt(np.prod(shape[1:]))
    elif leaf == "weight":
        z = 1 + 0.1 * z
    else:
        z = 0.05 * z
    return torch.from_numpy(np.asarray(z, dtype=np.float32))


def seeded_normal(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def weights_sha256(state_dict: dict[str, torch.Tensor]) -> str:
    """SHA-256 over key bytes and little-endian float32 bytes of every drawn float entry, keys sorted."""
    digest = hashlib.sha256()
    for key, value in sorted(state_dict.items()):
        if value.is_floating_point() and not is_analytic(key):
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(value.numpy(), dtype="<f4").tobytes())
    return digest.hexdigest()


def load_seeded(network: Network, sidecar: dict, gain: float = 1.0) -> Network:
    """A network, which may be built without memory, with the weights of a case, in evaluation mode."""
    network.load_state_dict(seeded_state_dict(network.state_dict(), sidecar["seed"], gain), assign=True)
    assert weights_sha256(network.state_dict()) == sidecar["weights_digest"]["sha256_sorted_key_then_f4_bytes"]
    return network.eval()


def same_input(given: torch.Tensor, digests: str | list | dict) -> torch.Tensor:
    """An input of a case, which its sidecar knows by a digest."""
    assert hashlib.sha256(given.numpy().tobytes()).hexdigest() in digests
    return given


def assert_published(network: torch.nn.Module, name: str) -> None:
    """Names and shapes are those of a published file."""
    manifest = json.loads(gzip.decompress((GOLDEN / "manifests" / f"{name}.json.gz").read_bytes()))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == manifest["shapes"]
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["n_parameters"]
