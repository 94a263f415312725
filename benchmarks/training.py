"""How fast the denoiser trains and what memory that takes, stage by stage and with each measure that saves memory.

    python -m benchmarks.training [--size tiny|full] [--steps 5] [--device auto|cpu] [--only stage2 ...]

Random weights and random clips; every network of a stage is there, and the batches lie in memory, so that the step alone is measured. Each
row runs in a process of its own, so that its peak is its own.
"""

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL

from benchmarks.write_random_checkpoint import TINY_AUDIO_DIM, vae_config
from latentsync.config import Config, SyncNetModelConfig, load_config
from latentsync.constants import VAE_FACTOR
from latentsync.data.sampling import UNetBatch
from latentsync.errors import first_line
from latentsync.faces.mask import fixed_mask
from latentsync.losses.lpips import LowerHalfLPIPS, empty_lpips
from latentsync.losses.sync import SyncLoss
from latentsync.losses.trepa import TREPALoss
from latentsync.mel import BANDS, window_length
from latentsync.models.syncnet import make_syncnet
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.third_party.videomae import VideoMAE
from latentsync.training.trainer import half_precision, make_accelerator, make_optimizer
from latentsync.training.unet import UNetStep, freeze

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "unet"
TINY_SYNCNET = SyncNetModelConfig()
TINY_SYNCNET.audio_encoder.block_out_channels = [32, 32, 64, 64, 64, 64, 256]
TINY_SYNCNET.visual_encoder.block_out_channels = [32, 32, 64, 64, 64, 64, 64, 256]
TOKENS_PER_POSITION, POSITIONS = 5, 10  # states of Whisper tiny, steps of a window


class BenchmarkRow(NamedTuple):
    """One line of the table."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    full_only: bool = False


ROWS = (
    BenchmarkRow("stage 1", "stage1"),
    BenchmarkRow("stage 1, activations kept", "stage1", ("run.enable_gradient_checkpointing=false",)),
    BenchmarkRow("stage 1, latents cached", "stage1", ("data.cache_latents=true",)),
    BenchmarkRow("stage 1, 8-bit optimizer", "stage1", ("optimizer.name=adamw_8bit",), full_only=True),
    BenchmarkRow("stage 2", "stage2"),
    BenchmarkRow("stage 2, activations kept", "stage2", ("run.enable_gradient_checkpointing=false",)),
    BenchmarkRow("stage 2, all faces decoded at once", "stage2", ("run.vae_slice_size=0",)),
    BenchmarkRow("stage 2, 8-bit optimizer", "stage2", ("optimizer.name=adamw_8bit",), full_only=True),
    BenchmarkRow("stage 2 efficient", "stage2_efficient"),
    BenchmarkRow("stage 1 at 512 px", "stage1_512", full_only=True),
    BenchmarkRow("stage 2 at 512 px", "stage2_512", full_only=True),
    BenchmarkRow("stage 2 at 512 px, 8-bit optimizer", "stage2_512", ("optimizer.name=adamw_8bit",), full_only=True),
)


TINY = (
    *("model.block_out_channels=[64,128,256,256]", "model.layers_per_block=1", f"model.cross_attention_dim={TINY_AUDIO_DIM}"),
    *("data.resolution=64", "videomae.width=64", "videomae.depth=2", "videomae.num_heads=4", "videomae.hidden=128"),
)


def step_of(config: Config, tiny: bool, device: torch.device, dtype: torch.dtype) -> UNetStep:
    """The step with every network that the configuration's losses need, at random weights."""
    weights = config.run.loss_weights
    codec = LatentCodec(AutoencoderKL.from_config(vae_config(tiny))).to(device, dtype)
    codec.slice_size = config.run.vae_slice_size or None
    networks: dict[str, torch.nn.Module] = {}
    if weights["sync"]:
        network = make_syncnet(TINY_SYNCNET if tiny else SyncNetModelConfig())
        sync = SyncLoss(network, resolution=256, num_frames=config.data.num_frames, latent_space=False, lower_half=True)
        networks["syncnet"] = sync.to(device)
    if weights["lpips"]:
        lpips = LowerHalfLPIPS(empty_lpips().to_empty(device=device), codec.slice_size)
        for value in lpips.state_dict().values():
            torch.nn.init.normal_(value, std=0.02)
        networks["vgg16"] = lpips
    if weights["trepa"]:
        network = VideoMAE(config.videomae).to(device, dtype)
        network.gradient_checkpointing = config.run.enable_gradient_checkpointing
        networks["videomae"] = TREPALoss(network)
    mask = fixed_mask(config.data.resolution).to(device)
    return UNetStep(codec, mask, config.run, networks)


def batch_of(config: Config, position: int, device: torch.device) -> UNetBatch:
    """One random clip."""
    frames, side = config.data.num_frames, config.data.resolution
    generator = torch.Generator().manual_seed(position)
    faces = torch.randint(256, (2, 1, frames, side, side, 3), generator=generator, dtype=torch.uint8)
    cells = side // VAE_FACTOR
    batch = UNetBatch(
        position=torch.tensor([position]),
        clip=torch.tensor([0]),
        problems=[],
        faces=faces[0],
        reference=faces[1],
        audio=torch.randn(1, frames, TOKENS_PER_POSITION * POSITIONS, config.model.cross_attention_dim, generator=generator),
        mel=torch.rand(1, 1, BANDS, window_length(frames), generator=generator),
        moments=torch.randn(1, frames, 3, 8, cells, cells, generator=generator) if config.data.cache_latents else None,
    )
    return batch.to(device)


def measure(row: BenchmarkRow, tiny: bool, steps: int, device: str) -> tuple[float, float, float]:
    """Train a few steps; seconds a step, peak memory in GB, millions of trained weights."""
    config = load_config(CONFIGS / f"{row.config}.yaml", row.overrides + (TINY if tiny else ()))
    accelerator = make_accelerator(config.run, device)
    unet = UNet3DConditionModel(config.model).to(memory_format=torch.channels_last)
    trained = freeze(unet, config.run.trainable_modules)
    unet.enable_gradient_checkpointing(config.run.enable_gradient_checkpointing)
    optimizer = make_optimizer([value for value in unet.parameters() if value.requires_grad], config.optimizer)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    step = step_of(config, tiny, accelerator.device, half_precision(accelerator))
    unet.train()
    seconds = []
    for position in range(steps + 1):  # the first is a warm-up
        batch = batch_of(config, position, accelerator.device)
        start = time.monotonic()
        with accelerator.autocast():
            losses = step(unet, batch)
        accelerator.backward(sum(config.run.loss_weights[name] * loss for name, loss in losses.items()))
        accelerator.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - start)
    cuda = accelerator.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return sorted(seconds[1:])[steps // 2], peak / 1e9, trained / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the denoiser's training.")
    parser.add_argument("--size", choices=("tiny", "full"), default="tiny", help="full wants a GPU of 24 GB or more (default: tiny)")
    parser.add_argument("--steps", type=int, default=5, help="measured after one step of warm-up (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--only", nargs="+", help="rows whose name begins so")
    arguments = parser.parse_args()
    tiny = arguments.size == "tiny"
    print("| | seconds a step | peak memory, GB | trained, millions |\n|---|---|---|---|")
    for row in ROWS:
        if (tiny and row.full_only) or (arguments.only and not row.name.startswith(tuple(arguments.only))):
            continue
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process of its own, so that its peak is its own
            try:
                seconds, peak, trained = pool.submit(measure, row, tiny, arguments.steps, arguments.device).result()
            except Exception as error:  # noqa: BLE001 - a row that fails is a line of the table
                print(f"| {row.name} | failed: {first_line(error)} | | |", flush=True)
                continue
        print(f"| {row.name} | {seconds:.3g} | {peak:.2f} | {trained:.1f} |", flush=True)


if __name__ == "__main__":
    main()
