"""Recipes of both trainings at tiny sizes: real networks, real clips, everything in one folder."""

import json
from pathlib import Path

import torch
from data_fixtures import make_folder
from omegaconf import OmegaConf

from benchmarks.overfit import write_random_vgg16
from benchmarks.write_random_checkpoint import write_checkpoint
from latentsync.config import load_config, load_syncnet_config
from latentsync.models.syncnet import make_syncnet
from latentsync.third_party.videomae import VideoMAE

FRAMES = 8
LEARNING_RATE = 1e-4
SYNCNET = {
    "audio_encoder": {
        "in_channels": 1,
        "block_out_channels": [32] * 4 + [256],
        "downsample_factors": [2, 2, 2, 2, [5, 1]],
        "attn_blocks": [0] * 5,
    },
    "visual_encoder": {
        "in_channels": 3 * FRAMES,
        "block_out_channels": [32] * 5 + [256],
        "downsample_factors": [[1, 2], 2, 2, 2, 2, 2],
        "attn_blocks": [0] * 6,
    },
}
VIDEOMAE = {"image_size": 28, "num_frames": FRAMES, "width": 16, "depth": 1, "num_heads": 2, "hidden": 32}


def write_clips(folder: Path) -> dict[str, str]:
    """Clips to train on and held-out ones, as settings."""
    make_folder(folder / "clips", 4)
    make_folder(folder / "held out", 2)
    return {"train_data_dir": "clips", "val_data_dir": "held out", "train_output_dir": "out", "num_workers": 0}


def syncnet_recipe(folder: Path, name: str = "syncnet.yaml") -> Path:
    """A SyncNet of some thousand weights on four clips."""
    recipe = {
        "data": {"resolution": 64, "num_frames": FRAMES, "batch_size": 2, **write_clips(folder)},
        "model": SYNCNET,
        "run": {
            **{"max_train_steps": 4, "validation_steps": 2, "log_steps": 1, "num_val_clips": 2, "mixed_precision": "no"},
            "loss_weights": {"sync": 1, "mouth": 0.5},
        },
        "optimizer": {"lr": LEARNING_RATE, "lr_scheduler": "cosine"},
        "ckpt": {"save_ckpt_steps": 2, "keep_last": 2},
    }
    OmegaConf.save(OmegaConf.create(recipe), folder / name)
    return folder / name


def unet_recipe(folder: Path) -> Path:
    """A denoiser with all four losses on four clips, with every loss network."""
    write_checkpoint(folder, "stage2", tiny=True)
    syncnet_recipe(folder)
    network = make_syncnet(load_syncnet_config(folder / "syncnet.yaml").model)
    torch.save({"state_dict": network.state_dict()}, folder / "stable_syncnet.pt")
    write_random_vgg16(folder / "vgg16.pth")
    recipe = {
        "data": {
            **{"resolution": 64, "num_frames": FRAMES, "batch_size": 1, "syncnet_config_path": "syncnet.yaml"},
            **{"train_data_dir": "clips", "val_data_dir": "held out", "train_output_dir": "out", "num_workers": 0},
        },
        "model": {"block_out_channels": [32] * 4, "layers_per_block": 1, "cross_attention_dim": 64},
        "videomae": VIDEOMAE,
        "weights": {
            **{"vae": "sd-vae-ft-mse", "whisper": "whisper/tiny.pt", "syncnet": "stable_syncnet.pt", "vgg16": "vgg16.pth"},
            "videomae": "videomae.pth",
        },
        "run": {
            "mixed_precision": "no",
            **{"max_train_steps": 1, "validation_steps": 2, "log_steps": 1, "num_val_clips": 1, "inference_steps": 1, "ema_decay": 0.5},
            "loss_weights": {"recon": 1, "sync": 0.05, "lpips": 0.1, "trepa": 10},
            "trainable_modules": ["motion_modules.", "attentions."],
        },
        "optimizer": {"lr": 1e-3},
        "ckpt": {"save_ckpt_steps": 2, "resume_ckpt_path": "latentsync_unet.pt"},
    }
    OmegaConf.save(OmegaConf.create(recipe), folder / "unet.yaml")
    torch.save({"model": VideoMAE(load_config(folder / "unet.yaml").videomae).state_dict()}, folder / "videomae.pth")
    return folder / "unet.yaml"


def history(folder: Path) -> list[dict]:
    """What an output folder says was measured."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def curve(folder: Path, kind: str, name: str) -> list[float]:
    """One value along the steps."""
    return [point["values"][name] for point in history(folder) if point["kind"] == kind and name in point["values"]]


def newest_weights(folder: Path) -> dict[str, torch.Tensor]:
    file = sorted((folder / "checkpoints").glob("*.pt"))[-1]
    return torch.load(file, weights_only=True)["state_dict"]
