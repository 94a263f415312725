"""Write seeded random weights in the published formats, at full or at tiny size: what benchmarks and tests run on without a download.

    python -m benchmarks.write_random_checkpoint OUT_DIR [--stage stage2] [--tiny] [--seed 0]

writes OUT_DIR/latentsync_unet.pt, OUT_DIR/whisper/tiny.pt and OUT_DIR/sd-vae-ft-mse/.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from whisper.model import ModelDimensions, Whisper

from latentsync.config import UNetConfig
from latentsync.constants import LATENT_CHANNELS, MAX_FRAMES
from latentsync.models.attention import position_table
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import V10_NAMES
from latentsync.models.vae import OLD_NAMES, WEIGHT_NAMES
from latentsync.weights import renamed

STAGES: Mapping[str, Mapping[str, bool]] = {
    "stage2": {},
    "stage2_efficient": {"motion_module_decoder_only": True},
    "stage1": {"use_motion_module": False},
    "v1.0": {"use_motion_module": False},
}
CONFIG = """
data: {resolution: 128}
model: {block_out_channels: [32, 32, 32, 32], layers_per_block: 1, cross_attention_dim: 64}
weights: {unet: latentsync_unet.pt, vae: sd-vae-ft-mse, whisper: whisper/tiny.pt}
"""  # of the tiny networks, beside their files
TINY_AUDIO_DIM = 64  # width of the tiny Whisper's states
WHISPER_TINY = ModelDimensions(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4)
WHISPER_MINUTE = ModelDimensions(80, 1500, TINY_AUDIO_DIM, 2, 2, 64, 8, TINY_AUDIO_DIM, 2, 1)


def unet_config(stage: str = "stage2", tiny: bool = False) -> UNetConfig:
    """Sizes of a published denoiser, or of one that has the same parts and a thousandth of the weights."""
    if tiny:
        return UNetConfig([32, 32, 32, 32], layers_per_block=1, cross_attention_dim=TINY_AUDIO_DIM, **STAGES[stage])
    return UNetConfig(**STAGES[stage])


def vae_config(tiny: bool = False) -> dict[str, Any]:
    """The config.json of Stable Diffusion's autoencoder, or of a tiny one."""
    widths = [8, 16, 16, 16] if tiny else [128, 256, 512, 512]
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "in_channels": 3,
        "latent_channels": LATENT_CHANNELS,
        "layers_per_block": 1 if tiny else 2,
        "norm_num_groups": 4 if tiny else 32,
        "out_channels": 3,
        "sample_size": 256,
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }


def random_weights(like: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Weights of the given names and shapes: normal with variance 1 / fan-in, norms the identity, biases zero, tables as they must be."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, value in like.items():
        if key.endswith(".pe"):
            found[key] = position_table(MAX_FRAMES, value.shape[-1])
        elif value.dim() > 1:
            found[key] = torch.randn(value.shape, generator=generator) / math.sqrt(value[0].numel())
        else:
            found[key] = torch.ones(value.shape) if key.endswith("weight") else torch.zeros(value.shape)
    return found


def write_unet(path: Path, config: UNetConfig, seed: int = 0, version: str = "1.6") -> None:
    """A denoiser as {"global_step", "state_dict"}, under the names of its version."""
    with torch.device("meta"):
        shapes = UNet3DConditionModel(config).state_dict()
    state_dict = random_weights(shapes, seed)
    if version == "1.0":
        state_dict = renamed(state_dict, {new: old for old, new in V10_NAMES.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": 0, "state_dict": state_dict}, path)


def write_whisper(path: Path, dims: ModelDimensions = WHISPER_TINY, seed: int = 0) -> None:
    """A Whisper as {"dims", "model_state_dict"}, in half precision like the published ones."""
    own = Whisper(dims).state_dict()
    table = "encoder.positional_embedding"
    state_dict = {key: value.half() for key, value in {**random_weights(own, seed), table: own[table]}.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dataclasses.asdict(dims), "model_state_dict": state_dict}, path)


def write_vae(folder: Path, config: dict[str, Any], seed: int = 0) -> None:
    """An autoencoder as a diffusers folder, with the attention names of the published one."""
    with torch.device("meta"):
        shapes = AutoencoderKL.from_config(config).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(renamed(random_weights(shapes, seed), {new: old for old, new in OLD_NAMES.items()}), folder / WEIGHT_NAMES[0])


def write_checkpoint(out_dir: Path, stage: str = "stage2", tiny: bool = False, seed: int = 0) -> None:
    write_unet(out_dir / "latentsync_unet.pt", unet_config(stage, tiny), seed, "1.0" if stage == "v1.0" else "1.6")
    write_whisper(out_dir / "whisper" / "tiny.pt", WHISPER_MINUTE if tiny else WHISPER_TINY, seed)
    write_vae(out_dir / "sd-vae-ft-mse", vae_config(tiny), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write seeded random weights in the published formats.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--stage", choices=STAGES, default="stage2", help="which denoiser (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a network of the same parts that fits into a megabyte or two")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_checkpoint(args.out_dir, args.stage, args.tiny, args.seed)


if __name__ == "__main__":
    main()
