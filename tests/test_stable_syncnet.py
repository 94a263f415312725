"""SyncNet against reference numbers and published key lists."""

import gzip
import json

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, assert_published, load_case, load_seeded, same_input, seeded_normal

from latentsync.config import EncoderConfig
from latentsync.models.syncnet import StableSyncNet, padding

CASES = ("syncnet_pixel16_tiny", "syncnet_pixel16_attn_tiny", "syncnet_latent16_tiny", "syncnet_pixel25_tiny")
PUBLISHED = ("16_pixel", "16_pixel_attn", "16_latent", "25_pixel")


def build(config):
    return StableSyncNet(EncoderConfig(**config["audio_encoder"]), EncoderConfig(**config["visual_encoder"]))


def inputs(name, sidecar):
    frames = seeded_normal(sidecar["seed"] + 1, (3, sidecar["config"]["visual_encoder"]["in_channels"], *SIZES[name]))
    frames = frames if "latent" in name else frames.clamp(-1, 1)
    mel = np.random.RandomState(sidecar["seed"] + 2).standard_normal((3, 1, 80, 80 if "25" in name else 52))
    mel = torch.from_numpy(np.clip(2 * mel, -4, 4).astype(np.float32))
    return same_input(frames, sidecar["inputs"]["image_sequences"]), same_input(mel, sidecar["inputs"]["audio_sequences"])


SIZES = {name: (32, 32) if "latent" in name else (128, 256) for name in CASES}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_embeddings_equal_the_reference(name):
    sidecar, tensors = load_case(name)
    net = load_seeded(build(sidecar["config"]), sidecar)
    frames, mel = inputs(name, sidecar)
    seen, audio = net(frames, mel)
    torch.testing.assert_close(seen, tensors["vision_embeds"], **sidecar["tolerance"])
    torch.testing.assert_close(audio, tensors["audio_embeds"], **sidecar["tolerance"])
    torch.testing.assert_close((seen * audio).sum(1), tensors["cosine"], **sidecar["tolerance"])
    first = net.audio_encoder.down_blocks[0](net.audio_encoder.conv_in(mel))[0]
    torch.testing.assert_close(first, tensors["audio_after_block0_item0"], **sidecar["tolerance"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_the_published_file(name):
    manifest = json.loads(gzip.decompress((GOLDEN / "manifests" / f"syncnet_v16_syncnet_{name}.json.gz").read_bytes()))
    with torch.device("meta"):
        net = build(manifest["config"])
    assert_published(net, f"syncnet_v16_syncnet_{name}")


def test_zeros_stand_where_the_stride_needs_them():
    assert padding((2, 2)) == padding((2, 3)) == (0, 1, 0, 1)
    assert padding((1, 2)) == (0, 1, 1, 1) and padding((2, 1)) == (1, 1, 0, 1)


def test_a_picture_of_another_size_is_refused():
    sizes = EncoderConfig(3, (64, 64), (2, 2), (0, 1))
    encoder = StableSyncNet(sizes, sizes).visual_encoder
    assert encoder(torch.zeros(1, 3, 4, 4)).shape == (1, 64, 1, 1)
    with pytest.raises(ValueError, match="2x2 cells"):
        encoder(torch.zeros(1, 3, 8, 8))
