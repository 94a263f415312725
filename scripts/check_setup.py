"""What is there and what fits this machine: `./setup_env.sh --check`. Nothing is installed, downloaded or written."""

import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from latentsync.config import Config, load_config
from latentsync.constants import VERSION
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import PUBLISHED, LatentCodec, load_vae
from latentsync.pipelines.build import CONFIGS, EMBEDDED, ROOT, VAE_SLICE_PIXELS, resolve_device, resolve_dtype
from latentsync.pipelines.memory import estimate_bytes
from latentsync.weights import CHECKPOINTS, VERSIONS, WEIGHTS, find_weights
from scripts.weights import in_columns

PARTS = {"app": "gradio", "training": "accelerate", "speech": "ai_edge_litert", "dev": "pytest"}  # --with-NAME -> a package of it
SHARED = ("whisper-tiny", "vae-config", "vae")  # what every published version needs beside its denoiser
BESIDE = 1e9  # bytes that Python, PyTorch and frames in flight take beside the networks


def needed_bytes(config: Config, dtype: torch.dtype) -> float:
    """Memory of a job of one clip at a time with guidance. The published networks are built without weights, which need not be there."""
    resolution = config.data.resolution
    with torch.device("meta"):
        unet = UNet3DConditionModel(config.model).to(dtype)
        vae = LatentCodec(AutoencoderKL(**PUBLISHED).to(dtype)) if config.weights.vae is None else None
    vae = vae or load_vae(config.weights.vae, dtype=dtype)
    vae.slice_size = max(1, VAE_SLICE_PIXELS // resolution**2)
    return BESIDE + estimate_bytes(unet, vae, nn.Identity(), resolution=resolution, unet_frames=2 * config.data.num_frames)


def describe_device(device: torch.device) -> tuple[str, int]:
    """The device for a person, and its memory in bytes; the machine's where it has none of its own."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.name, properties.total_memory
    names = {"cpu": f"processor ({platform.machine()}, {os.cpu_count()} cores), no GPU", "mps": "Apple GPU"}
    return names.get(device.type, device.type), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe_ffmpeg() -> str:
    """Where ffmpeg is and which version, or what to do."""
    path = shutil.which("ffmpeg")
    if path is None or shutil.which("ffprobe") is None:
        return "missing (with ffprobe): ./setup_env.sh installs it where it may"
    first = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return f"{path}, {' '.join(first.split()[1:3]) or 'which does not start'}"


def models(device: torch.device, root: Path = ROOT) -> Iterator[tuple[str, ...]]:
    """A row for each model: name, whether it is there, size of a face, memory, whether that fits, file or what is missing."""
    dtype, (_, memory) = resolve_dtype("auto", device), describe_device(device)
    for name in (*VERSIONS, "embedded"):
        names = () if name == "embedded" else (f"unet-{name}", *SHARED)
        missing = [WEIGHTS[key] for key in names if find_weights(key, root / CHECKPOINTS) is None]
        config = load_config(root / EMBEDDED if not names else root / "configs" / "unet" / CONFIGS[name])
        needed = needed_bytes(config, dtype)
        fits = "yes" if needed < memory else "no"
        place = config.weights.unet if not names else find_weights(names[0], root / CHECKPOINTS)
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        where = f"missing: {CHECKPOINTS / missing[0].path}{others}" if missing else str(place)
        yield name, "no" if missing else "yes", f"{config.data.resolution} px", f"{needed / 1e9:.1f} GB", fits, where


def main() -> int:
    """Print what is there; the exit code, 0 where a video can be made."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    device = resolve_device()
    name, memory = describe_device(device)
    there = [part for part, package in PARTS.items() if find_spec(package)]
    left = " ".join(f"--with-{part}" for part in PARTS if part not in there)
    dtype = str(resolve_dtype("auto", device)).removeprefix("torch.")
    rows = list(models(device))
    print(f"latentsync {VERSION}, Python {platform.python_version()}, PyTorch {torch.__version__}")
    print(f"device    {name}, {memory / 1e9:.1f} GB, networks in {dtype}")
    print(f"disk      {shutil.disk_usage(ROOT).free / 1e9:.0f} GB free at {ROOT}")
    print(f"ffmpeg    {describe_ffmpeg()}")
    print(f"packages  {', '.join(['inference', *there])}{f' (./setup_env.sh {left} adds the rest)' if left else ''}")
    print(in_columns([("model", "there", "face", "memory", "fits", "file"), *rows]))
    usable = [row[0] for row in rows if row[1] == row[4] == "yes"]
    print(f"./inference.sh uses {next((row[0] for row in rows if row[1] == 'yes'), 'nothing')}; docs/weights.md says where files come from")
    return int(not usable or "missing" in describe_ffmpeg())


if __name__ == "__main__":
    sys.exit(main())
