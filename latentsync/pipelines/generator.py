"""Faces and sound in, faces with a new mouth out: the networks' part of the pipeline, batch by batch, without files."""

import logging
from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler
from einops import rearrange, repeat
from torch import Tensor

from latentsync.constants import VAE_FACTOR
from latentsync.diffusion import Conditions, denoise
from latentsync.faces.mask import fixed_mask, latent_mask, masked_pixels, to_pixels
from latentsync.faces.skin import match_skin, skin_weights
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.pipelines.memory import in_smaller_batches
from latentsync.pipelines.report import Stopwatch

logger = logging.getLogger(__name__)


class FaceGenerator:
    """Generates the mouths of clips that all have the same number of frames.

    Args:
        vae, unet, scheduler: the networks, and the schedule with its timesteps set.
        resolution: side of a face in pixels.
        mask_name: which of the fixed masks.
        noise: the start of every clip, (1, 4, 1, h/8, w/8): one frame of noise for the whole video.
        guidance_scale: see `denoise`.
        match_skin: see `latentsync.faces.skin.match_skin`.
        use_reference: False shows zeros in the place of the reference, as to a denoiser that was trained so.
        clock: takes the time of each stage.
        on_step: called after each denoising step with the number of steps done.
    """

    def __init__(
        self,
        vae: LatentCodec,
        unet: UNet3DConditionModel,
        scheduler: DDIMScheduler,
        *,
        resolution: int,
        mask_name: str,
        noise: Tensor,
        guidance_scale: float,
        match_skin: bool = False,
        use_reference: bool = True,
        clock: Stopwatch,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.vae, self.unet, self.scheduler, self.clock = vae, unet, scheduler, clock
        self.mask = fixed_mask(resolution, mask_name).to(unet.device)  # h w
        self.noise = noise.to(unet.device)
        self.guidance_scale = guidance_scale
        self.use_reference = use_reference
        self.match_skin = match_skin
        self.on_step = on_step
        self.largest_batch: int | None = None  # clips that fit into memory at once, known after a failure

    def __call__(
        self, faces: Sequence[Tensor], noises: Sequence[Tensor], windows: Sequence[Tensor], keeps: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """New faces of several clips of one length, in smaller batches when memory runs out.

        Args:
            faces: uint8 (f, R, R, 3) for each clip.
            noises: (2, f, 4, R/8, R/8) for each clip, see `Clip.noise`.
            windows: audio (f, n, d) for each clip.
            keeps: masks (f, R, R) for each clip of what goes into the frame (1 = not): colours are compared on the rest alone; by default
                the fixed mask.

        Returns:
            Pixels float32 (f, 3, R, R) for each clip: generated where the mask is 0, the input elsewhere.
        """
        keeps = keeps or [self.mask.expand(len(part), -1, -1) for part in faces]
        items, size = list(zip(faces, noises, windows, keeps, strict=True)), self.largest_batch or len(faces)
        done: list[Tensor] = []
        for start in range(0, len(items), size):
            done += in_smaller_batches(self._generate, items[start : start + size], self._shrink)
        return done

    def _shrink(self, failed: int) -> bool:
        """Remember that a batch was too large; a single clip may still fit when the autoencoder sees fewer frames at once."""
        self.largest_batch = max(1, failed // 2)
        logger.warning("Memory ran out with %d clip(s) at once: going on with less.", failed)
        if failed > 1 or self.vae.slice_size == 1:
            return False
        self.vae.slice_size = max(1, (self.vae.slice_size or 16) // 2)
        return True

    @torch.no_grad()
    def _generate(self, items: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> list[Tensor]:
        faces, noises, windows, keeps = (torch.stack(part) for part in zip(*items, strict=True))
        pixels = to_pixels(faces.to(self.unet.device))  # b f c h w
        with self.clock("encode"):
            conditions = self.encode(pixels, noises.to(pixels))
        with self.clock("denoise"):
            noise = self.noise.expand(len(items), -1, pixels.shape[1], -1, -1)
            latents = denoise(
                self.unet,
                self.scheduler,
                noise,
                conditions,
                windows.to(pixels),
                guidance_scale=self.guidance_scale,
                dtype=self.unet.dtype,
                on_step=self.on_step,
            )
        with self.clock("decode"):
            return list(self.paste(self.decode(latents), pixels, keeps.to(pixels)))

    def encode(self, pixels: Tensor, noises: Tensor) -> Conditions:
        """What the denoiser is shown.

        Args:
            pixels: aligned faces (b, f, 3, h, w) in [-1, 1]; at inference each frame is its own reference.
            noises: (b, 2, f, 4, h/8, w/8).
        """
        batch, frames = pixels.shape[:2]
        both = torch.stack([masked_pixels(pixels, self.mask), pixels], dim=1)
        latents = self.vae.encode(
            rearrange(both, "b k f c h w -> (b k f) c h w").to(self.vae.dtype),
            rearrange(noises, "b k f c h w -> (b k f) c h w").to(self.vae.dtype),
        )
        masked, reference = rearrange(latents.float(), "(b k f) c h w -> k b c f h w", b=batch, k=2)
        mask = repeat(latent_mask(self.mask), "h w -> b 1 f h w", b=batch, f=frames)
        return Conditions(mask, masked, reference if self.use_reference else torch.zeros_like(reference))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (b, 4, f, h/8, w/8) to pixels float32 (b, f, 3, h, w)."""
        pixels = self.vae.decode(rearrange(latents, "b c f h w -> (b f) c h w").to(self.vae.dtype))
        return rearrange(pixels.float(), "(b f) c h w -> b f c h w", b=len(latents))

    def paste(self, generated: Tensor, pixels: Tensor, keep: Tensor | None = None) -> Tensor:
        """The generated mouth inside the untouched rest of the aligned face; both (b, f, 3, h, w).

        keep: masks (b, f, h, w) whose other part is where colours are compared; by default the fixed mask.
        """
        if self.match_skin:
            generated = match_skin(generated, pixels, skin_weights(self.mask if keep is None else keep))
        return generated * (1 - self.mask) + pixels * self.mask


def latent_size(resolution: int) -> int:
    """Side of a face in latent cells."""
    return resolution // VAE_FACTOR
