"""The SyncNet of the ablation against reference numbers and the published key list."""

import gzip
import hashlib
import json

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, load_case, seeded_normal, seeded_state_dict, weights_sha256

from latentsync.config import SyncNetModelConfig
from latentsync.models.syncnet import Wav2LipSyncNet, make_syncnet
from latentsync.training.syncnet import SyncNetTrainee

NAME = "syncnet_wav2lip_full"


@pytest.fixture(scope="module")
def network() -> Wav2LipSyncNet:
    sidecar, _ = load_case(NAME)
    net = make_syncnet(SyncNetModelConfig(network="wav2lip")).eval()
    weights = seeded_state_dict(net.state_dict(), sidecar["seed"])
    assert weights_sha256(weights) == sidecar["weights_digest"]["sha256_sorted_key_then_f4_bytes"]
    net.load_state_dict(weights)
    return net


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """The seeded pictures and sounds, which the sidecar knows by their digests."""
    sidecar, _ = load_case(NAME)
    frames = seeded_normal(sidecar["seed"] + 1, (2, 15, 128, 256)).clamp(-1, 1)
    mel = np.random.RandomState(sidecar["seed"] + 2).standard_normal((2, 1, 80, 16))
    mel = torch.from_numpy(np.clip(2 * mel, -4, 4).astype(np.float32))
    for given, kind in ((frames, "image_sequences"), (mel, "audio_sequences")):
        assert hashlib.sha256(given.numpy().tobytes()).hexdigest() in sidecar["inputs"][kind]
    return frames, mel


@torch.no_grad()
def test_embeddings_equal_the_reference(network: Wav2LipSyncNet, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    sidecar, tensors = load_case(NAME)
    seen, heard = network(*inputs)
    torch.testing.assert_close(seen, tensors["vision_embeds"], **sidecar["tolerance"])
    torch.testing.assert_close(heard, tensors["audio_embeds"], **sidecar["tolerance"])
    torch.testing.assert_close((seen * heard).sum(1), tensors["cosine"], **sidecar["tolerance"])


def test_names_and_shapes_are_those_of_the_published_class(network: Wav2LipSyncNet) -> None:
    manifest = json.loads(gzip.decompress((GOLDEN / "manifests" / "syncnet_v16_wav2lip.json.gz").read_bytes()))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == manifest["shapes"]
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["n_parameters"]


def test_it_can_be_trained_like_the_other_one(network: Wav2LipSyncNet, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    scale = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    seen, heard, seen_mouth, audio_mouth = SyncNetTrainee(network, scale, num_frames=5)(*inputs)
    assert seen.shape == heard.shape == (2, network.width) and seen_mouth.shape == audio_mouth.shape == (2, 5, 3)
