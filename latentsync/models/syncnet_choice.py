"""Either SyncNet, by its configuration: fresh, or trained."""

from dataclasses import asdict
from pathlib import Path

from latentsync.config import load_syncnet_config
from latentsync.models.stable_syncnet import EncoderSizes, StableSyncNet
from latentsync.models.syncnet import SyncNet
from latentsync.models.wav2lip_syncnet import Wav2LipSyncNet
from latentsync.training_config import SyncNetConfig, SyncNetModelConfig
from latentsync.weights import load_strict, read_state_dict


def make_syncnet(model: SyncNetModelConfig) -> SyncNet:
    """A fresh network of a configuration's kind and sizes."""
    if model.network == "wav2lip":
        return Wav2LipSyncNet()
    return StableSyncNet(EncoderSizes(**asdict(model.audio_encoder)), EncoderSizes(**asdict(model.visual_encoder)))


def load_syncnet(config_path: Path, weights: Path) -> tuple[SyncNetConfig, SyncNet]:
    """A trained SyncNet on the CPU, and the configuration that it was trained with.

    Raises ConfigError or WeightsError where the two do not belong together or cannot be read.
    """
    config = load_syncnet_config(config_path)
    network = make_syncnet(config.model)
    load_strict(network, read_state_dict(weights)[0], weights, f"use the weights that belong to {config_path}")
    return config, network
