"""The SyncNet of the ablation against reference numbers and the published key list."""

import numpy as np
import pytest
import torch
from golden_recipe import assert_published, load_case, load_seeded, same_input, seeded_normal

from latentsync.config import SyncNetModelConfig
from latentsync.models.syncnet import Wav2LipSyncNet, make_syncnet
from latentsync.training.syncnet import SyncNetTrainee

SIDECAR, TENSORS = load_case("syncnet_wav2lip_full")


@pytest.fixture(scope="module")
def network() -> Wav2LipSyncNet:
    network = make_syncnet(SyncNetModelConfig(network="wav2lip"))
    assert_published(network, "syncnet_v16_wav2lip")
    return load_seeded(network, SIDECAR)


def test_embeddings_equal_the_reference(network: Wav2LipSyncNet) -> None:
    frames = seeded_normal(SIDECAR["seed"] + 1, (2, 15, 128, 256)).clamp(-1, 1)
    mel = np.clip(2 * np.random.RandomState(SIDECAR["seed"] + 2).standard_normal((2, 1, 80, 16)), -4, 4)
    frames = same_input(frames, SIDECAR["inputs"]["image_sequences"])
    mel = same_input(torch.from_numpy(mel.astype(np.float32)), SIDECAR["inputs"]["audio_sequences"])
    with torch.no_grad():
        visual, audio = network(frames, mel)
        for found, name in ((visual, "vision_embeds"), (audio, "audio_embeds"), ((visual * audio).sum(1), "cosine")):
            torch.testing.assert_close(found, TENSORS[name], **SIDECAR["tolerance"])
    scale = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])  # trained like the other one
    visual, audio, visual_mouth, audio_mouth = SyncNetTrainee(network, scale, num_frames=5)(frames, mel)
    assert visual.shape == audio.shape == (2, network.width) and visual_mouth.shape == audio_mouth.shape == (2, 5, 3)
