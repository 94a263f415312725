"""The published recipe beside the presets of quality, with the full-size networks and random weights, in one run.

    python -m benchmarks.side_by_side [--resolution 256] [--clips 1 4] [--device auto] [--dtype auto] [--rounds 1] [--compile]

Published: DDIM, 20 steps, guidance 1.5, features cached for 3 steps, one clip a call, weights in the usual memory layout, float32 on a
processor and float16 on a GPU. It stands for the published program, whose own code took longer for a step than this network does.

Each kind of step (full or shallow, with or without guidance) and both directions of the autoencoder are timed in turn, the best of the
rounds counts; the time of a clip is their sum by the steps of each recipe. Nothing else is in it: faces, sound and files take a few
per cent of it (`benchmarks.pipeline speed`).
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.write_random_checkpoint import vae_config
from latentsync.config import Sampling, UNetConfig
from latentsync.constants import VAE_FACTOR
from latentsync.diffusion import Conditions, predict_noise
from latentsync.models.unet import FeatureCache, UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.pipelines.build import DTYPES, VAE_SLICE_PIXELS, compile_forward, resolve_device, resolve_dtype
from latentsync.pipelines.options import QUALITIES, LipsyncOptions

NUM_FRAMES, TOKENS = 16, 50
PUBLISHED = Sampling(cache_interval=3)
StepKind = tuple[bool, bool]  # full or shallow, with guidance or without


class Recipe(NamedTuple):
    """A way to make a clip."""

    name: str
    sampling: Sampling
    dtype: torch.dtype
    memory_format: torch.memory_format
    clips: int  # in one call


class Networks:
    """Denoiser and autoencoder of the published sizes with small random weights."""

    def __init__(self, device: torch.device) -> None:
        with torch.device("meta"):
            unet, vae = UNet3DConditionModel(UNetConfig()), AutoencoderKL.from_config(vae_config())
        self.unet, vae = (filled(network.to_empty(device=device)) for network in (unet, vae))
        self.vae, self.device = LatentCodec(vae), device

    def to(self, recipe: Recipe, resolution: int) -> None:
        """Give them the precision and the memory layout of a recipe."""
        for network in (self.unet, self.vae):
            network.to(recipe.dtype, memory_format=recipe.memory_format)
        self.vae.slice_size = max(1, VAE_SLICE_PIXELS // resolution**2)


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """Small random weights."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.normal_(0, 0.02)
    return network.eval().requires_grad_(False)


def step_kinds(sampling: Sampling) -> Counter[StepKind]:
    """How many steps of each kind a sampling loop has."""
    steps = range(sampling.inference_steps)
    return Counter((step % sampling.cache_interval == 0, sampling.guidance_at(step) > 1) for step in steps)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def pieces_of(networks: Networks, recipe: Recipe, resolution: int) -> dict[str | StepKind, tuple[int, Callable[[], object]]]:
    """The pieces of work of a recipe: how often each is done for its clips, and the work."""
    side, device, dtype = resolution // VAE_FACTOR, networks.device, recipe.dtype
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    noisy, masked, reference = (normal(recipe.clips, 4, NUM_FRAMES, side, side) for _ in range(3))
    conditions, audio = Conditions(torch.ones_like(noisy[:, :1]), masked, reference), normal(recipe.clips, NUM_FRAMES, TOKENS, 384)
    frames = recipe.clips * NUM_FRAMES
    pixels, latents = normal(2 * frames, 3, resolution, resolution), normal(frames, 4, side, side)
    filled_cache = FeatureCache(recipe.sampling.cache_branch)
    predict_noise(networks.unet, noisy, torch.tensor(501), conditions, audio, 1.5, filled_cache)

    def step(kind: StepKind) -> Callable[[], object]:
        is_full, is_guided = kind
        cache = None if is_full else filled_cache
        return lambda: predict_noise(networks.unet, noisy, torch.tensor(501), conditions, audio, 1.5 if is_guided else 1.0, cache)

    work: dict[str | StepKind, tuple[int, Callable[[], object]]] = {
        kind: (count, step(kind)) for kind, count in step_kinds(recipe.sampling).items()
    }
    return work | {"encode": (1, lambda: networks.vae.moments(pixels)), "decode": (1, lambda: networks.vae.decode(latents))}


def peak(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """TFLOP a second of a large product of matrices and of a 3x3 convolution."""
    a, b = (torch.randn(2048, 2048, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(32, 320, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(320, 320, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    work = {"matrix": lambda: a @ b, "convolution": lambda: torch.nn.functional.conv2d(x, weight, padding=1)}
    counts = {"matrix": 2 * 2048**3, "convolution": 2 * 32 * 32 * 32 * 320 * 320 * 9}
    return {name: counts[name] / min(timed(call, device) for _ in range(5)) / 1e12 for name, call in work.items()}


def recipes(device: torch.device, clips: list[int], ours: torch.dtype) -> list[Recipe]:
    """The published recipe first; the presets in the precision `ours`."""
    theirs = torch.float32 if device.type == "cpu" else torch.float16
    presets = {name: LipsyncOptions(quality=name).completed(Sampling()).sampling for name in reversed(QUALITIES)}
    found = [Recipe("published", PUBLISHED, theirs, torch.contiguous_format, 1)]
    return found + [Recipe(name, sampling, ours, torch.channels_last, count) for count in clips for name, sampling in presets.items()]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Time the published recipe and the presets side by side.")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 4], help="clips in one call (default: 1 4)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="of the presets; fp32: as on a processor without AMX")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="compile the networks of the presets")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; {arguments.resolution} px, clips of {NUM_FRAMES} frames, 1.27 G parameters")
    networks, best, flops = Networks(device), {}, {}
    todo = recipes(device, arguments.clips, resolve_dtype(arguments.dtype, device))
    for dtype in dict.fromkeys(recipe.dtype for recipe in todo):
        print(f"peak in {dtype}: " + ", ".join(f"{name} {rate:.2f} TFLOP/s" for name, rate in peak(device, dtype).items()), flush=True)
    for _ in range(arguments.rounds):
        for recipe in todo:
            networks.to(recipe, arguments.resolution)
            if arguments.compile and recipe.name != "published" and "forward" not in vars(networks.unet):
                compile_forward(networks.unet, lambda sample: True)
            for piece, (_, work) in pieces_of(networks, recipe, arguments.resolution).items():
                key = (recipe.dtype, recipe.memory_format, recipe.clips, piece, recipe.sampling.cache_branch)
                with FlopCounterMode(display=False) as counter:
                    seconds = timed(work, device)
                flops[key], best[key] = counter.get_total_flops(), min(best.get(key, math.inf), seconds)
            report(recipe, cost(recipe, best), cost(todo[0], best), cost(recipe, flops))


def report(recipe: Recipe, seconds: float, published: float, operations: float) -> None:
    """A line of the table."""
    evaluations = sum(number * (1 + guided) for (_, guided), number in step_kinds(recipe.sampling).items())
    print(
        f"{recipe.name:9s} {str(recipe.dtype).removeprefix('torch.'):8s} {recipe.clips} clip(s) a call: {seconds:8.2f} s a clip, "
        f"{published / seconds:5.2f} times as fast, {evaluations} evaluations, {operations / 1e12:.1f} TFLOP, "
        f"{operations / seconds / 1e12:.2f} TFLOP/s",
        flush=True,
    )


def cost(recipe: Recipe, of_piece: dict) -> float:
    """Seconds, or operations, of one clip of a recipe, from those of its pieces."""
    parts: dict[str | StepKind, int] = {**step_kinds(recipe.sampling), "encode": 1, "decode": 1}
    layout = (recipe.dtype, recipe.memory_format, recipe.clips)
    return sum(count * of_piece[(*layout, piece, recipe.sampling.cache_branch)] for piece, count in parts.items()) / recipe.clips


if __name__ == "__main__":
    main()
