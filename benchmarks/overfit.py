"""Let the training command learn a few clips by heart, from nothing: the proof that every part fits every other and the losses agree.

    python -m benchmarks.overfit OUT_DIR VIDEO... [--syncnet CHECKPOINT --syncnet_config YAML] [--seconds 3] [--minutes 4]
    ./train_unet.sh --unet_config_path OUT_DIR/noise.yaml
    ./train_unet.sh --unet_config_path OUT_DIR/all_losses.yaml

The first command cuts aligned faces out of the videos, trains a small autoencoder on these faces, and writes the configurations of the
others: the loss of the noise alone, which is cheap, then all losses from there (with a trained SyncNet only). The network behind LPIPS has
random weights where no file of VGG-16 is given. A network that saw one clip knows each frame by its upper half: with other words
on the same clip the old mouth comes back.
"""

import argparse
import itertools
import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from benchmarks.write_random_checkpoint import TINY_AUDIO_DIM, WHISPER_MINUTE, vae_config, write_whisper
from latentsync.config import UNetConfig, load_syncnet_config
from latentsync.constants import LATENT_SCALE, VIDEO_FPS
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import build_detector
from latentsync.faces.mask import to_pixels
from latentsync.faces.plan import plan_spans
from latentsync.losses.lpips import empty_lpips
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import AudioTrack, VideoWriter
from latentsync.models.vae import LatentCodec

logger = logging.getLogger("overfit")

RESOLUTION, NUM_FRAMES = 128, 16
VAE_SLICE = 16  # faces that go through the autoencoder at once
UNET = UNetConfig([32, 64, 128, 128], layers_per_block=1, norm_num_groups=32, cross_attention_dim=TINY_AUDIO_DIM)
VAE = vae_config(tiny=True) | {"block_out_channels": [16, 32, 64, 64], "norm_num_groups": 8}


STAGES = {  # what differs between the two trainings, by the name of their folder; the second goes on from the first
    "noise": {
        "data": {"batch_size": 2},
        "run": {"max_train_steps": 700, "validation_steps": 350, "loss_weights": {"recon": 1, "sync": 0, "lpips": 0, "trepa": 0}},
        "optimizer": {"lr": 8e-4},
    },
    "all_losses": {
        "data": {"batch_size": 1},
        "run": {"max_train_steps": 300, "validation_steps": 100, "loss_weights": {"recon": 1, "sync": 0.2, "lpips": 0.5, "trepa": 0}},
        "optimizer": {"lr": 3e-4},
        "ckpt": {"resume_ckpt_path": "noise/checkpoints/checkpoint-00000700.pt"},
    },
}


def cut_faces(video: Path, frames: int, target: Path) -> Tensor:
    """The aligned faces of a video's first frames as a clip with its sound; uint8 t R R 3."""
    source = VideoReader(video, Fraction(VIDEO_FPS))
    span = plan_spans(source.frames(0, frames), build_detector("mtcnn", Path(), Path()), RESOLUTION, VIDEO_FPS).spans[0]
    if span.start:
        raise SystemExit(f"{video} does not begin with a face: give another one")
    faces = warp_faces(list(source.frames(0, span.stop)), torch.from_numpy(span.matrices), RESOLUTION)
    write(faces.numpy(), video, target)
    return faces


def write(frames: Iterable[np.ndarray], sound: Path, target: Path) -> None:
    """Pictures as a video with the beginning of another video's sound."""
    frames = list(frames)
    height, width = frames[0].shape[:2]
    with VideoWriter(target, width, height, VIDEO_FPS, audio=AudioTrack(sound, len(frames) / VIDEO_FPS), crf=8) as sink:
        for frame in frames:
            sink.write(frame)


def write_random_vgg16(path: Path) -> None:
    """Random weights under the names of torchvision's file, at the scale that keeps activations as large as they are."""
    weights = {key: torch.zeros(value.shape) for key, value in empty_lpips().net.state_dict().items()}
    for value in weights.values():
        if value.dim() > 1:
            torch.nn.init.kaiming_normal_(value)
    torch.save({f"features.{key.partition('.')[2]}": value for key, value in weights.items()}, path)


def train_vae(pixels: Tensor, seconds: float, generator: torch.Generator) -> LatentCodec:
    """An autoencoder of one clip whose latents have the variance that the method counts on."""
    vae = AutoencoderKL.from_config(VAE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    start = time.monotonic()
    for step in itertools.count():
        if (gone := (time.monotonic() - start) / seconds) >= 1:
            break
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - gone) + 1e-5
        batch = pixels[torch.randint(len(pixels), (4,), generator=generator)]
        posterior = vae.encode(batch).latent_dist
        decoded = vae.decode(posterior.mean + 0.1 * posterior.std * torch.randn(posterior.mean.shape, generator=generator)).sample
        loss = (
            F.l1_loss(decoded, batch)
            + 0.5 * sum((decoded - batch).diff(dim=side).abs().mean() for side in (-1, -2))
            + 1e-5 * posterior.kl().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            logger.info("autoencoder: step %d, loss %.4f", step, loss.item())
    normalise_latents(vae.eval().requires_grad_(False), pixels)
    return LatentCodec(vae, slice_size=VAE_SLICE)


def normalise_latents(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Change the layers around the latents so that scaled latents have mean 0 and variance 1; what is decoded stays as it was. In place."""
    means = torch.cat([vae.encode(part).latent_dist.mean.movedim(1, -1).flatten(0, -2) for part in pixels.split(VAE_SLICE)])  # n 4
    centre, factor = means.mean(0), 1 / (LATENT_SCALE * means.std(0))
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ centre
    vae.post_quant_conv.weight /= factor[:, None, None]
    before, channels = vae.quant_conv, len(factor)
    before.weight[:channels] *= factor[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - centre) * factor
    before.bias[channels:] += 2 * factor.log()  # the logarithms of the variances


def recipe(arguments: argparse.Namespace, stage: str) -> DictConfig:
    trained = arguments.syncnet_config is not None
    shared = {
        "data": {
            "resolution": RESOLUTION,
            "num_frames": load_syncnet_config(arguments.syncnet_config).data.num_frames if trained else NUM_FRAMES,
            **{"train_data_dir": "clips", "val_data_dir": "same clips", "train_output_dir": stage},
            **{"num_workers": 0, "cache_faces": True, "cache_latents": True, "val_video_path": "video.mp4", "val_audio_path": "video.mp4"},
            **({"syncnet_config_path": str(arguments.syncnet_config.resolve())} if trained else {}),
        },
        "model": asdict(UNET),
        "weights": {
            **{"vae": "vae", "whisper": "whisper/tiny.pt", "vgg16": str((arguments.vgg16 or arguments.out_dir / "vgg16.pth").resolve())},
            **({"syncnet": str(arguments.syncnet.resolve())} if trained else {}),
        },
        "run": {  # the clips are small
            **{"num_val_clips": 12, "ema_decay": 0.99, "guidance_scale": 1.0},
            **{"enable_gradient_checkpointing": False, "vae_slice_size": 0},
        },
        "optimizer": {"lr_scheduler": "cosine", "lr_warmup_steps": 30},
        "ckpt": {"save_ckpt_steps": 100},
    }
    return OmegaConf.merge(shared, STAGES[stage])


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare a training that learns a handful of clips by heart.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("videos", type=Path, nargs="+", help="videos of one person each; the first is the validation video, too")
    parser.add_argument("--syncnet", type=Path, help="weights of a trained SyncNet, for all losses")
    parser.add_argument("--syncnet_config", type=Path, help="its configuration")
    parser.add_argument("--vgg16", type=Path, help="torchvision's vgg16-397923af.pth (default: random weights)")
    parser.add_argument("--seconds", type=float, default=3, help="of each video (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=4, help="time for the autoencoder (default: %(default)s)")
    arguments = parser.parse_args()
    if (arguments.syncnet is None) != (arguments.syncnet_config is None):
        parser.error("--syncnet and --syncnet_config belong together")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(0)
    write_whisper(arguments.out_dir / "whisper" / "tiny.pt", WHISPER_MINUTE)
    clips = arguments.out_dir / "clips"
    clips.mkdir(exist_ok=True)
    length, first = round(arguments.seconds * VIDEO_FPS), arguments.videos[0]
    faces = torch.cat([cut_faces(video, length, clips / f"{number}_{video.stem}.mp4") for number, video in enumerate(arguments.videos)])
    shutil.copytree(clips, arguments.out_dir / "same clips", dirs_exist_ok=True)  # the losses on them with the same noise every time
    write(VideoReader(first, Fraction(VIDEO_FPS)).frames(0, length), first, arguments.out_dir / "video.mp4")
    codec = train_vae(to_pixels(faces), 60 * arguments.minutes, torch.Generator().manual_seed(0))
    codec.vae.save_pretrained(arguments.out_dir / "vae")
    if arguments.vgg16 is None:
        write_random_vgg16(arguments.out_dir / "vgg16.pth")
    for stage in list(STAGES)[: 2 if arguments.syncnet else 1]:
        OmegaConf.save(recipe(arguments, stage), arguments.out_dir / f"{stage}.yaml")


if __name__ == "__main__":
    main()
