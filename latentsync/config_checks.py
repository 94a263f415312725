"""What the values that both trainings share may be, and those of SyncNet; each refusal is one sentence."""

from collections.abc import Sequence
from functools import reduce
from math import inf
from typing import Any, NamedTuple

from latentsync.config_reading import Source
from latentsync.constants import LATENT_CHANNELS, RGB, SYNCNET_NORM_GROUPS, VAE_FACTOR
from latentsync.errors import ConfigError
from latentsync.training_config import (
    LR_SCHEDULERS,
    OPTIMIZERS,
    PRECISIONS,
    SYNCNETS,
    CkptConfig,
    EncoderConfig,
    OptimizerConfig,
    RunConfig,
    SyncNetConfig,
    SyncNetDataConfig,
    TrainingDataConfig,
    UNetRunConfig,
    VideoMAEConfig,
)

LARGEST_SEED = 2**31 - 1  # leaves room for one seed for each process
MAX_INFERENCE_STEPS = 1000  # steps of the schedule that the denoiser is trained on


class Rule(NamedTuple):
    """One thing that a value must be."""

    key: str  # dotted, in the whole configuration
    holds: bool
    must_be: str


def enforce(config: Any, rules: Sequence[Rule], source: Source) -> None:
    """Refuse the first value that breaks its rule; the ConfigError names the file, or the override, that it comes from."""
    for rule in rules:
        if not rule.holds:
            raise ConfigError(f"{source.of(rule.key)}: '{rule.key}' is {value_at(config, rule.key)!r}, but it must be {rule.must_be}")


def value_at(config: Any, key: str) -> Any:
    """The value behind a dotted key, in dataclasses and mappings."""
    return reduce(lambda part, name: part[name] if isinstance(part, dict) else getattr(part, name), key.split("."), config)


def at_least(least: int, section: str, values: Any, *names: str) -> list[Rule]:
    """The rules for whole numbers of one section."""
    return [Rule(f"{section}.{name}", getattr(values, name) >= least, f"{least} or more") for name in names]


def one_of(key: str, value: str, names: Sequence[str]) -> Rule:
    """The rule for a name out of a list."""
    return Rule(key, value in names, f"one of {', '.join(names)}")


def shared_rules(data: TrainingDataConfig, run: RunConfig, optimizer: OptimizerConfig, ckpt: CkptConfig) -> list[Rule]:
    """What holds for every training."""
    weights = run.loss_weights
    return [
        *at_least(1, "data", data, "batch_size"),
        *at_least(0, "data", data, "num_workers"),
        Rule("run.seed", 0 <= run.seed <= LARGEST_SEED, f"between 0 and {LARGEST_SEED}"),
        *at_least(1, "run", run, "max_train_steps", "gradient_accumulation_steps", "validation_steps", "log_steps", "num_val_clips"),
        one_of("run.mixed_precision", run.mixed_precision, PRECISIONS),
        Rule("run.ema_decay", 0 <= run.ema_decay < 1, "0 for none, or less than 1"),
        *(Rule(f"run.loss_weights.{name}", 0 <= weight < inf, "0 for none, or more") for name, weight in weights.items()),
        Rule("run.loss_weights", sum(weights.values()) > 0, "more than 0 for one loss at least"),
        one_of("optimizer.name", optimizer.name, OPTIMIZERS),
        Rule("optimizer.lr", 0 < optimizer.lr < inf, "more than 0"),
        Rule("optimizer.weight_decay", 0 <= optimizer.weight_decay < inf, "0 or more"),
        Rule("optimizer.max_grad_norm", optimizer.max_grad_norm > 0, "more than 0"),
        one_of("optimizer.lr_scheduler", optimizer.lr_scheduler, LR_SCHEDULERS),
        *at_least(0, "optimizer", optimizer, "lr_warmup_steps"),
        *at_least(1, "ckpt", ckpt, "save_ckpt_steps", "keep_last"),
    ]


def unet_training_rules(run: UNetRunConfig, videomae: VideoMAEConfig) -> list[Rule]:
    """What holds for the training of the denoiser besides."""
    sizes = ("image_size", "patch_size", "num_frames", "tubelet_size", "width", "depth", "num_heads", "hidden")
    return [
        *at_least(0, "run", run, "vae_slice_size"),
        Rule("run.coarse_noise", 0 <= run.coarse_noise < inf, "0 for none, or more"),
        Rule("run.noisy_share", 0 <= run.noisy_share <= 1, "a share between 0 and 1"),
        Rule("run.noisy_weight", 1 <= run.noisy_weight < inf, "1 for none, or more"),
        Rule("run.mouth_weight", 1 <= run.mouth_weight < inf, "1 for none, or more"),
        Rule("run.mixed_noise_alpha", 0 <= run.mixed_noise_alpha < inf, "0 or more"),
        Rule("run.inference_steps", 1 <= run.inference_steps <= MAX_INFERENCE_STEPS, f"between 1 and {MAX_INFERENCE_STEPS}"),
        Rule("run.guidance_scale", 0 <= run.guidance_scale < inf, "0 or more"),
        Rule("run.paste", run.paste in ("face", "mask"), "face or mask"),
        *at_least(1, "videomae", videomae, *sizes),
        *multiple_of("videomae", videomae, "image_size", "patch_size"),
        *multiple_of("videomae", videomae, "num_frames", "tubelet_size"),
        *multiple_of("videomae", videomae, "width", "num_heads"),
    ]


def multiple_of(section: str, values: Any, name: str, part: str) -> list[Rule]:
    """The rule for a size that is divided by another one; a part that is no size has a rule of its own."""
    whole, size = getattr(values, name), getattr(values, part)
    return [Rule(f"{section}.{name}", size < 1 or whole % size == 0, f"a multiple of {section}.{part}, which is {size}")]


def check_syncnet(config: SyncNetConfig, source: Source) -> None:
    """Refuse values that no SyncNet can have; that its blocks shrink the picture to one cell is left to the network."""
    data, audio, visual = config.data, config.model.audio_encoder, config.model.visual_encoder
    each, kind = (LATENT_CHANNELS, "a latent") if data.latent_space else (RGB, "an RGB picture")
    channels = each * data.num_frames
    sizes = [
        *encoder_rules("model.audio_encoder", audio),
        *encoder_rules("model.visual_encoder", visual),
        Rule("model.audio_encoder.in_channels", audio.in_channels == 1, "1, for a mel spectrogram is one picture"),
        Rule(
            "model.visual_encoder.in_channels",
            visual.in_channels == channels,
            f"{channels}: {each}, the channels of {kind}, for each of {data.num_frames} frames (data.num_frames, data.latent_space)",
        ),
        Rule(
            "model.visual_encoder.block_out_channels",
            audio.block_out_channels[-1:] == visual.block_out_channels[-1:],
            f"a list that ends like model.audio_encoder.block_out_channels, with {audio.block_out_channels[-1:]}",
        ),
    ]
    rules = [
        Rule("data.resolution", data.resolution > 0 and data.resolution % VAE_FACTOR == 0, f"a multiple of {VAE_FACTOR}"),
        *at_least(1, "data", data, "num_frames"),
        *shared_rules(data, config.run, config.optimizer, config.ckpt),
        *at_least(1, "run", config.run, "chance_steps"),
        one_of("model.network", config.model.network, SYNCNETS),
        *(wav2lip_rules(data) if config.model.network == "wav2lip" else sizes),
    ]
    enforce(config, rules, source)


def wav2lip_rules(data: SyncNetDataConfig) -> list[Rule]:
    """What the SyncNet of fixed size looks at."""
    why = "because model.network is wav2lip"
    return [
        Rule("data.num_frames", data.num_frames == 5, f"5, {why}"),
        Rule("data.resolution", data.resolution == 256, f"256, {why}"),
        Rule("data.latent_space", not data.latent_space, f"false, {why}"),
        Rule("data.lower_half", data.lower_half, f"true, {why}"),
        Rule("data.batch_size", data.batch_size >= 2, f"2 or more, {why} and has batch norms"),
    ]


def encoder_rules(section: str, encoder: EncoderConfig) -> list[Rule]:
    """What holds for either encoder of SyncNet."""
    widths = encoder.block_out_channels
    as_many = f"a list as long as {section}.block_out_channels, {len(widths)}"
    return [
        Rule(
            f"{section}.block_out_channels",
            bool(widths) and all(width > 0 and width % SYNCNET_NORM_GROUPS == 0 for width in widths),
            f"a list of widths, each a multiple of {SYNCNET_NORM_GROUPS}",
        ),
        Rule(
            f"{section}.downsample_factors",
            len(encoder.downsample_factors) == len(widths) and all(map(is_factor, encoder.downsample_factors)),
            f"{as_many}; each entry a whole number from 1 on, or two of them for height and width",
        ),
        Rule(
            f"{section}.attn_blocks",
            len(encoder.attn_blocks) == len(widths) and set(encoder.attn_blocks) <= {0, 1},
            f"{as_many}; each entry 1 for a block of attention, 0 for none",
        ),
        Rule(f"{section}.dropout", 0 <= encoder.dropout < 1, "0 for none, or less than 1"),
    ]


def is_factor(factor: Any) -> bool:
    """Is this how much smaller a block makes its input: a number, or one for height and one for width?"""
    pair = factor if isinstance(factor, list) else [factor, factor]
    return len(pair) == 2 and all(type(number) is int and number >= 1 for number in pair)
