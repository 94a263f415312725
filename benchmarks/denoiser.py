"""One guided denoising step of one clip of 16 frames by the full-size denoiser with random weights: ours beside a naive version.

    python -m benchmarks.denoiser [--resolution 256] [--device cpu] [--dtype fp32] [--rounds 2] [--batch_clips 1]

Naive means: the two halves of guidance and the clips one after the other, attention written out (softmax of a full matrix), weights in
the usual memory layout. Both run in turn in one process; the best of the rounds counts.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from latentsync.config import UNetConfig
from latentsync.constants import VAE_FACTOR
from latentsync.diffusion import Conditions, predict_noise
from latentsync.models.unet import UNet3DConditionModel
from latentsync.pipelines.build import DTYPES, resolve_device

NUM_FRAMES, TOKENS, GUIDANCE = 16, 50, 1.5


def written_out_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as a formula: the whole matrix of weights exists."""
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v


def make_unet(device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format) -> UNet3DConditionModel:
    """The denoiser of versions 1.5 and 1.6 with small random weights."""
    with torch.device("meta"):
        unet = UNet3DConditionModel(UNetConfig())
    unet = unet.to_empty(device=device).to(dtype)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in unet.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    for name, table in unet.named_buffers():
        table.zero_() if name.endswith(".pe") else None
    return unet.to(memory_format=memory_format).eval().requires_grad_(False)


def inputs(batch: int, resolution: int, device: torch.device, dtype: torch.dtype, width: int) -> tuple[Tensor, Conditions, Tensor]:
    """Noisy latents, conditions and audio of a batch of clips."""
    side, generator = resolution // VAE_FACTOR, torch.Generator().manual_seed(1)
    noisy, masked, reference = (torch.randn(batch, 4, NUM_FRAMES, side, side, generator=generator).to(device, dtype) for _ in range(3))
    audio = torch.randn(batch, NUM_FRAMES, TOKENS, width, generator=generator).to(device, dtype)
    return noisy, Conditions(torch.ones_like(noisy[:, :1]), masked, reference), audio


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Time one guided denoising step, ours and naive.")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_clips", type=int, default=1)
    parser.add_argument("--skip_naive", action="store_true")
    arguments = parser.parse_args()
    device, dtype, batch = resolve_device(arguments.device), DTYPES[arguments.dtype], arguments.batch_clips
    unet = make_unet(device, dtype, torch.channels_last)
    noisy, conditions, audio = inputs(batch, arguments.resolution, device, dtype, unet.config.cross_attention_dim)
    timestep, attention = torch.tensor(501), F.scaled_dot_product_attention

    def ours() -> None:
        predict_noise(unet, noisy, timestep, conditions, audio, GUIDANCE)

    def naive() -> None:
        F.scaled_dot_product_attention = written_out_attention
        try:
            for clip in range(batch):
                one = Conditions(*(part[clip : clip + 1] for part in (conditions.mask, conditions.masked, conditions.reference)))
                for condition in (torch.zeros_like(audio), audio):
                    predict_noise(unet, noisy[clip : clip + 1], timestep, one, condition[clip : clip + 1], 1)
        finally:
            F.scaled_dot_product_attention = attention

    contenders = {"ours": (ours, torch.channels_last), "naive": (naive, torch.contiguous_format)}
    if arguments.skip_naive:
        del contenders["naive"]
    best: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, (work, memory_format) in contenders.items():
            unet.to(memory_format=memory_format)
            best[name] = min(best.get(name, math.inf), timed(work, device))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, {arguments.dtype}, {arguments.resolution} px, {batch} clip(s) of {NUM_FRAMES} frames, one guided step")
    for name, seconds in best.items():
        print(f"{name}: {seconds:.3f} s, {seconds / batch:.3f} s a clip, {1000 * seconds / (batch * NUM_FRAMES):.1f} ms a frame")


if __name__ == "__main__":
    main()
