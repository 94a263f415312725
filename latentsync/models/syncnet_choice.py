"""Either SyncNet, by its configuration."""

from dataclasses import asdict

from latentsync.models.stable_syncnet import EncoderSizes, StableSyncNet
from latentsync.models.syncnet import SyncNet
from latentsync.models.wav2lip_syncnet import Wav2LipSyncNet
from latentsync.training_config import SyncNetModelConfig


def make_syncnet(model: SyncNetModelConfig) -> SyncNet:
    """A fresh network of a configuration's kind and sizes."""
    if model.network == "wav2lip":
        return Wav2LipSyncNet()
    return StableSyncNet(EncoderSizes(**asdict(model.audio_encoder)), EncoderSizes(**asdict(model.visual_encoder)))
