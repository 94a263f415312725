"""Teach a small network one clip by heart, from nothing: the shortest proof that every part of the pipeline fits every other.

    python -m benchmarks.overfit_one_clip CLIP OUT_DIR [--minutes 12]
    ./inference.sh --unet_config_path OUT_DIR/config.yaml --video_path CLIP --audio_path CLIP --video_out_path result.mp4

The autoencoder learns the faces of the clip first, then the denoiser learns to paint their mouths from the rest of the picture and the
sound; the audio encoder keeps its random weights. What is learnt by heart need not be learnt from the sound: other words on the same clip
bring back the old mouth. Everything is written in the published formats. The same
command again goes on from what OUT_DIR holds, with the denoiser alone.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange, repeat
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.write_random_checkpoint import TINY_AUDIO_DIM, WHISPER_MINUTE, vae_config, write_whisper
from embedded.autoencoder import edge_loss, normalise_latents
from latentsync.config import UNetConfig
from latentsync.constants import VIDEO_FPS
from latentsync.diffusion import Conditions, make_scheduler, mixed_noise, predict_noise
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import build_detector
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, to_pixels
from latentsync.faces.plan import plan_spans
from latentsync.media.audio import AudioSamples
from latentsync.media.video_reader import VideoReader
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import load_unet
from latentsync.models.vae import LatentCodec, load_vae
from latentsync.whisper.audio2feature import Audio2Feature, load_whisper_encoder

logger = logging.getLogger("overfit")

RESOLUTION, NUM_FRAMES = 128, 16
VAE_SLICE = 16  # faces that go through the autoencoder at once
VAE_SHARE = 0.35  # of the time that goes into the autoencoder
UNET = UNetConfig([32, 64, 128, 128], layers_per_block=1, norm_num_groups=32, cross_attention_dim=TINY_AUDIO_DIM)
VAE = vae_config(tiny=True) | {"block_out_channels": [16, 32, 64, 64], "norm_num_groups": 8}


def faces_and_sound(clip: Path, whisper: Path) -> tuple[Tensor, Tensor]:
    """Pixels (t, 3, R, R) of the first span of a clip, and the windows of its sound (t, n, d)."""
    source = VideoReader(clip, Fraction(VIDEO_FPS))
    plan = plan_spans(source.frames(), build_detector("mtcnn", Path(), Path()), RESOLUTION, VIDEO_FPS)
    span = plan.spans[0]
    pixels = to_pixels(warp_faces(list(source.frames(span.start, span.stop)), torch.from_numpy(span.matrices), RESOLUTION))
    with AudioSamples(clip) as samples:
        windows = Audio2Feature(load_whisper_encoder(whisper)).windows(samples).frames(span.start, span.stop)
    return pixels, windows


def until(deadline: float, name: str) -> Iterator[tuple[int, float]]:
    """(step, share of the time that is gone) until a moment; says now and then how it goes."""
    start, step = time.monotonic(), 0
    while (now := time.monotonic()) < deadline:
        if step % 200 == 0:
            logger.info("%s: step %d, %.0f s", name, step, now - start)
        yield step, (now - start) / (deadline - start)
        step += 1


def train_vae(pixels: Tensor, deadline: float, generator: torch.Generator) -> LatentCodec:
    """An autoencoder of one clip whose latents have the variance that the method counts on."""
    vae = AutoencoderKL.from_config(VAE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    for step, gone in until(deadline, "autoencoder"):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - gone) + 1e-5
        batch = pixels[torch.randint(len(pixels), (4,), generator=generator)]
        posterior = vae.encode(batch).latent_dist
        decoded = vae.decode(posterior.mean + 0.1 * posterior.std * torch.randn(posterior.mean.shape, generator=generator)).sample
        loss = F.l1_loss(decoded, batch) + 0.5 * edge_loss(decoded, batch, scales=1) + 1e-5 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logger.info("autoencoder: last loss %.4f", loss.item())
    normalise_latents(vae.eval().requires_grad_(False), pixels.split(VAE_SLICE))
    return LatentCodec(vae, slice_size=VAE_SLICE)


def fresh_unet() -> UNet3DConditionModel:
    """A denoiser that knows nothing, and whose first layer is not all zero, which speeds up the beginning."""
    unet = UNet3DConditionModel(UNET)
    torch.nn.init.kaiming_uniform_(unet.conv_in.weight, a=5**0.5)
    return unet


def train_unet(
    unet: UNet3DConditionModel, codec: LatentCodec, pixels: Tensor, windows: Tensor, deadline: float, generator: torch.Generator
) -> UNet3DConditionModel:
    """A denoiser that knows one clip: the loss of the published first stage, weighted towards noisy steps for speed."""
    scheduler, mask = make_scheduler(), fixed_mask(RESOLUTION)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=8e-4)
    averaged = torch.optim.swa_utils.AveragedModel(unet, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    with torch.no_grad():
        target, masked = (
            codec.encode(part, torch.zeros(len(part), 4, *[RESOLUTION // 8] * 2)) for part in (pixels, masked_pixels(pixels, mask))
        )
    latent = repeat(latent_mask(mask), "h w -> 1 1 f h w", f=NUM_FRAMES)
    last = len(pixels) - NUM_FRAMES
    for step, gone in until(deadline, "denoiser"):
        optimizer.param_groups[0]["lr"] = 8e-4 * min(1, (step + 1) / 100) * (1 - gone) + 1e-6
        start, reference = (int(torch.randint(last + 1, (1,), generator=generator)) for _ in range(2))
        clip, far, hidden = (clip_of(part, k) for part, k in ((target, start), (target, reference), (masked, start)))
        noise = mixed_noise(torch.randn(clip.shape, generator=generator), torch.randn(clip.shape, generator=generator))
        timestep = torch.randint(1000, (1,), generator=generator)
        noisy = scheduler.add_noise(clip, noise, timestep)
        audio = windows[None, start : start + NUM_FRAMES]
        alpha = scheduler.alphas_cumprod[timestep]
        weight = ((1 - alpha) / alpha).clamp(0.5, 5)  # the shape of the mouth is settled where there is much noise
        loss = weight * F.mse_loss(predict_noise(unet, noisy, timestep, Conditions(latent, hidden, far), audio, scale=1), noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(unet)
    return averaged.module.eval()


def clip_of(latents: Tensor, start: int) -> Tensor:
    """The clip (1, 4, f, h, w) that begins at a frame of latents (t, 4, h, w)."""
    return rearrange(latents[start : start + NUM_FRAMES], "f c h w -> 1 c f h w")


def write_files(out_dir: Path, codec: LatentCodec, unet: UNet3DConditionModel) -> None:
    """Denoiser, autoencoder and a configuration that names them, beside the audio encoder that is there already."""
    torch.save({"global_step": 0, "state_dict": unet.state_dict()}, out_dir / "latentsync_unet.pt")
    codec.vae.save_pretrained(out_dir / "vae")
    weights = {"unet": "latentsync_unet.pt", "vae": "vae", "whisper": "whisper/tiny.pt"}
    settings = {"data": {"resolution": RESOLUTION, "num_frames": NUM_FRAMES}, "model": asdict(UNET), "weights": weights}
    OmegaConf.save(OmegaConf.create(settings), out_dir / "config.yaml")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Overfit a small network to one clip.")
    parser.add_argument("clip", type=Path, help="a short video of one person talking, with its sound")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--minutes", type=float, default=12, help="time for learning (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    write_whisper(arguments.out_dir / "whisper" / "tiny.pt", WHISPER_MINUTE)
    pixels, windows = faces_and_sound(arguments.clip, arguments.out_dir / "whisper" / "tiny.pt")
    logger.info("%d faces, %s", len(pixels), json.dumps({"audio": list(windows.shape)}))
    start, seconds, denoiser = time.monotonic(), arguments.minutes * 60, arguments.out_dir / "latentsync_unet.pt"
    if denoiser.is_file():
        codec, unet = load_vae(arguments.out_dir / "vae"), load_unet(UNET, denoiser).train().requires_grad_(True)
        codec.slice_size = VAE_SLICE
        generator.manual_seed(denoiser.stat().st_mtime_ns % 2**32)  # other draws than last time
    else:
        codec, unet = train_vae(pixels, start + VAE_SHARE * seconds, generator), fresh_unet()
    write_files(arguments.out_dir, codec, train_unet(unet, codec, pixels, windows, start + seconds, generator))


if __name__ == "__main__":
    main()
