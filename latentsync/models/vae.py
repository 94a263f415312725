"""Pixels to latents and back: the autoencoder of Stable Diffusion, with its scale, its sampling and its memory in one place."""

import json
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from latentsync.constants import LATENT_CHANNELS, LATENT_SCALE, LATENT_SHIFT
from latentsync.errors import WeightsError, first_line
from latentsync.weights import load_strict, read_state_dict, renamed

WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")  # in a diffusers folder, best first
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # attention before diffusers 0.15
PARTS = ("first_stage_model.", "vae.")  # what its names begin with in a file of several networks
PUBLISHED = {  # config.json of stabilityai/sd-vae-ft-mse, for a file that lies without one
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": LATENT_CHANNELS,
    "sample_size": 256,
}
LEAST_LOG_VARIANCE = -30.0  # what posteriors are clamped to
_ORIGINAL = "encoder.down.0.block.0.norm1.weight"  # an entry under the names of the original Stable Diffusion
_HINT = "use the folder of stabilityai/sd-vae-ft-mse"


class SkipAutoencoderKL(AutoencoderKL):
    """An `AutoencoderKL` whose decoder is also shown the picture around the mouth, as the one of arXiv 2306.04632 is.

    Features of its own encoder, of the masked picture, are added to those of the decoder at every resolution by a 1 x 1 convolution each.
    They begin at zero, so that the weights of an `AutoencoderKL` can start it.
    """

    @wraps(AutoencoderKL.__init__)
    def __init__(self, *arguments: Any, **sizes: Any) -> None:
        super().__init__(*arguments, **sizes)
        widths = self.config.block_out_channels
        inputs = [widths[-1], *reversed(widths[:-2]), widths[0]]  # of the encoder, from the smallest map to the largest
        self.skips = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(inputs, [widths[-1], *widths[:0:-1]], strict=True))
        for value in self.skips.parameters():
            nn.init.zeros_(value)

    def decode_beside(self, samples: Tensor, masked: Tensor) -> Tensor:
        """Samples of posteriors n 4 h/8 w/8, and the masked picture n 3 h w in [-1, 1] (0 in the mask) -> pixels n 3 h w."""
        maps = [self.encoder.conv_in(masked)]
        for block in self.encoder.down_blocks:
            maps.append(block(maps[-1]))
        shown = [maps[-1], *maps[-3::-1]]  # the last block has the size of the one before
        x = self.decoder.mid_block(self.decoder.conv_in(self.post_quant_conv(samples)))
        for block, skip, beside in zip(self.decoder.up_blocks, self.skips, shown, strict=True):
            x = block(x + skip(beside))
        return self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(x)))


AUTOENCODERS = {kind.__name__: kind for kind in (AutoencoderKL, SkipAutoencoderKL)}


class LatentCodec(nn.Module):
    """An `AutoencoderKL` behind the project's conventions.

    *Pixels* are n 3 h w in [-1, 1], *latents* n 4 h/8 w/8 with about unit variance: (sample - LATENT_SHIFT) * LATENT_SCALE. Both
    calls take pictures of any number and work on `slice_size` of them (None: all) at a time, so that memory is bounded; gradients pass.
    """

    def __init__(self, vae: AutoencoderKL, slice_size: int | None = None) -> None:
        super().__init__()
        self.vae = vae
        self.slice_size = slice_size

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    @property
    def device(self) -> torch.device:
        return self.vae.device

    @property
    def first_width(self) -> int:
        """Channels at the resolution of pixels."""
        return self.vae.config.block_out_channels[0]

    @property
    def is_shown_picture(self) -> bool:
        """Whether `decode` uses the masked picture."""
        return isinstance(self.vae, SkipAutoencoderKL)

    def encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Latents of pixels: a sample of the posterior, as the method was trained on, drawn with standard normal noise n 4 h/8 w/8."""
        return sample_latents(self.moments(pixels), noise).to(self.dtype)

    def moments(self, pixels: Tensor) -> Tensor:
        """Mean and log-variance of the posteriors of pixels n 3 h w: n 8 h/8 w/8, without shift and scale."""
        parts = pixels.split(self.slice_size or len(pixels))
        return torch.cat([self.vae.encode(part).latent_dist.parameters for part in parts])

    def decode(self, latents: Tensor, masked: Tensor | None = None) -> Tensor:
        """Latents n 4 h w -> pixels n 3 8h 8w, nominally in [-1, 1] and not clamped; `masked`: see `SkipAutoencoderKL`, else unused."""
        size = self.slice_size or len(latents)
        samples = [part / LATENT_SCALE + LATENT_SHIFT for part in latents.split(size)]
        if masked is not None and self.is_shown_picture:
            return torch.cat([self.vae.decode_beside(*pair) for pair in zip(samples, masked.split(size), strict=True)])
        return torch.cat([self.vae.decode(part).sample for part in samples])


class TinyLatentCodec(LatentCodec):
    """An `AutoencoderTiny` (such as madebyollin/taesd) in the place of an `AutoencoderKL`: for drafts.

    It works on scaled latents and has no variance, so that a posterior is one point.
    """

    @property
    def first_width(self) -> int:
        """As of `LatentCodec`."""
        return self.vae.config.decoder_block_out_channels[-1]

    def moments(self, pixels: Tensor) -> Tensor:
        """As of `LatentCodec`, with the least log-variance there is."""
        parts = pixels.split(self.slice_size or len(pixels))
        mean = torch.cat([self.vae.encode(part).latents for part in parts]) / LATENT_SCALE + LATENT_SHIFT
        return torch.cat([mean, torch.full_like(mean, LEAST_LOG_VARIANCE)], dim=1)

    def decode(self, latents: Tensor, masked: Tensor | None = None) -> Tensor:
        """As of `LatentCodec`."""
        parts = latents.split(self.slice_size or len(latents))
        return torch.cat([self.vae.decode(part).sample for part in parts])


def sample_latents(moments: Tensor, noise: Tensor) -> Tensor:
    """A sample of posteriors [... 8 h w] (mean, log-variance) by standard normal noise [... 4 h w], as latents; computed in float32."""
    posterior = DiagonalGaussianDistribution(moments.float().flatten(0, -4))
    sample = posterior.mean + posterior.std * noise.float().flatten(0, -4)
    return ((sample - LATENT_SHIFT) * LATENT_SCALE).unflatten(0, moments.shape[:-3])


def load_vae(path: Path | str, dtype: torch.dtype = torch.float32) -> LatentCodec:
    """The autoencoder of a diffusers folder or of a file, on the CPU, in evaluation mode and without gradients of its own.

    Args:
        path: a folder with config.json and the weights as .safetensors or .bin, with attention names of any diffusers release (or the
            folder of a whole Stable Diffusion, whose folder "vae" is taken); or a file of weights, also under the names of the original
            Stable Diffusion, which without a config.json beside it has the published sizes.

    Raises WeightsError.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    places = [path] if not path.is_dir() else [place / name for place in (folder, folder / "vae") for name in WEIGHT_NAMES]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        advice = "run `python -m scripts.download_weights`, which fetches it or says where to get it"
        raise WeightsError(f"{folder} holds no {' or '.join(WEIGHT_NAMES)}: {advice}.")
    config_path = file.parent / "config.json"
    config = PUBLISHED if file == path and not config_path.is_file() else _read_config(config_path)
    vae = _build(config, config_path)
    weights, _ = read_state_dict(file, PARTS)
    if _ORIGINAL in weights:
        weights = convert_ldm_vae_checkpoint(weights, vae.config)
    load_strict(vae, renamed(weights, OLD_NAMES), file, _HINT, assign=True)
    return LatentCodec(vae).to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)


def load_tiny_vae(path: Path | str, dtype: torch.dtype = torch.float32) -> TinyLatentCodec:
    """The small autoencoder of a diffusers folder, as `load_vae`. Raises WeightsError where it holds none with four latent channels."""
    try:
        vae = AutoencoderTiny.from_pretrained(str(path), torch_dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} holds no AutoencoderTiny ({first_line(error)}): name a folder with config.json and weights, such as madebyollin/taesd."
        ) from error
    if vae.config.latent_channels != LATENT_CHANNELS:
        raise WeightsError(
            f"{path} works on {vae.config.latent_channels} latent channels in place of {LATENT_CHANNELS}: use madebyollin/taesd."
        )
    return TinyLatentCodec(vae).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _build(config: Mapping[str, Any], config_path: Path) -> AutoencoderKL:
    """The network that a config.json describes, without memory for its weights."""
    if config.get("latent_channels", LATENT_CHANNELS) != LATENT_CHANNELS or config.get("scaling_factor", LATENT_SCALE) != LATENT_SCALE:
        raise WeightsError(f"{config_path} describes an autoencoder with other latents than Stable Diffusion 1.5's: {_HINT}.")
    try:
        with torch.device("meta"):
            return AUTOENCODERS[config.get("_class_name", "AutoencoderKL")].from_config(dict(config))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{config_path} does not describe an AutoencoderKL ({error}): {_HINT}.") from error


def _read_config(config_path: Path) -> dict[str, Any]:
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{config_path} cannot be read ({error.strerror}): it belongs beside the autoencoder's weights.") from error
    except ValueError as error:
        raise WeightsError(f"{config_path} is not valid JSON ({error}): {_HINT}.") from error
    if not isinstance(config, dict) or config.get("_class_name", "AutoencoderKL") not in AUTOENCODERS:
        raise WeightsError(f"{config_path} does not describe an AutoencoderKL: {_HINT}.")
    return config
