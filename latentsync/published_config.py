"""Keys of the YAML files published with 1.0, 1.5 and 1.6 that are read under another name, pinned to one value, or ignored."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from latentsync.constants import ATTENTION_HEADS, AUDIO_SAMPLE_RATE, LATENT_CHANNELS, UNET_IN_CHANNELS, VIDEO_FPS
from latentsync.errors import ConfigError

logger = logging.getLogger(__name__)

# Spelling of the previous release -> the present key. It is read, with a logged line, for one release.
OLD_KEYS = {
    "data.counterfactual": "data.counterfactual_pairs",
    "data.made": "data.generated",
    "weights.mouth_reader": "weights.landmark_network",
    "measures.reader": "measures.landmark_network",
    "run.coarse_noise": "run.low_frequency_noise",
    "run.noisy_share": "run.timestep_bias",
    "run.noisy_weight": "run.x0_weighting",
    "run.loss_weights.contrast": "run.loss_weights.infonce",
    "run.loss_weights.reader": "run.loss_weights.landmark_feature",
    "run.loss_weights.reader_motion": "run.loss_weights.temporal_feature",
    "run.loss_weights.reader_points": "run.loss_weights.landmarks",
}
MASK_NAMES = ("mask", "mask2", "mask3", "mask4")
FIX_MASK = "fix_mask"  # the way of 1.0 to name its one fixed mask


@dataclass(frozen=True)
class PublishedKeys:
    """What one kind of published file says beyond the current keys; all by dotted name."""

    pinned: Mapping[str, tuple[Any, ...]]  # fixed by the method: accepted at these values, because nothing else is built here
    ignored: frozenset[str]  # nothing here reads them
    renamed: Mapping[str, str]  # published key -> the current one that means the same
    switches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # false makes these current keys 0
    foreign: Mapping[str, str] = field(default_factory=dict)  # start of a key of the other kind of file -> what to do
    pictures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # current key -> names it may have in place of a picture's path


def is_on(value: Any, sentence: str) -> bool:
    """A switch."""
    if not isinstance(value, bool):
        raise ConfigError(f"{sentence}, but it must be true or false")
    return value


NOT_PUBLISHED = PublishedKeys({}, frozenset(), {})  # of configurations that only this project has

PINNED: dict[str, tuple[Any, ...]] = {
    "data.audio_sample_rate": (AUDIO_SAMPLE_RATE,),
    "data.video_fps": (VIDEO_FPS,),
    "optimizer.scale_lr": (False,),
}
UNET_PINNED: dict[str, tuple[Any, ...]] = {
    **PINNED,
    "model.act_fn": ("silu",),
    "model.add_audio_layer": (True,),
    "model.attention_head_dim": (ATTENTION_HEADS,),  # the published name; it counts heads
    "model.audio_condition_method": ("cross_attn",),
    "model.center_input_sample": (False,),
    "model.custom_audio_layer": (False,),
    "model.down_block_types": (["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],),
    "model.downsample_padding": (1,),
    "model.flip_sin_to_cos": (True,),
    "model.freq_shift": (0,),
    "model.in_channels": (UNET_IN_CHANNELS,),
    "model.mid_block_scale_factor": (1,),
    "model.mid_block_type": ("UNetMidBlock3DCrossAttn",),
    "model.motion_module_kwargs.attention_block_types": (["Temporal_Self", "Temporal_Self"],),
    "model.motion_module_kwargs.num_attention_heads": (ATTENTION_HEADS,),
    "model.motion_module_kwargs.num_transformer_block": (1,),
    "model.motion_module_kwargs.temporal_attention_dim_div": (1,),
    "model.motion_module_kwargs.temporal_position_encoding": (True,),
    "model.motion_module_kwargs.temporal_position_encoding_max_len": (16, 24),  # the table is analytic: its length changes no value
    "model.motion_module_kwargs.zero_initialize": (True,),
    "model.motion_module_mid_block": (False,),
    "model.motion_module_resolutions": ([1, 2, 4, 8],),
    "model.motion_module_type": ("Vanilla",),
    "model.norm_eps": (1e-5,),
    "model.out_channels": (LATENT_CHANNELS,),
    "model.resnet_time_scale_shift": ("default",),
    "model.unet_use_cross_frame_attention": (False,),
    "model.unet_use_temporal_attention": (False,),
    "model.up_block_types": (["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],),
}

IGNORED = (
    "data.audio_cache_dir",
    "data.audio_mel_cache_dir",
    "data.data_dir",
    "run.enable_xformers_memory_efficient_attention",
    "run.max_train_epochs",
)
PRECISION_SWITCH = "run.mixed_precision_training"  # true: fp16
RENAMED = {PRECISION_SWITCH: "run.mixed_precision"}

UNET_KEYS = PublishedKeys(
    UNET_PINNED,
    frozenset((*IGNORED, "data.audio_embeds_cache_dir", "model.sample_size")),
    {
        **RENAMED,
        "data.mask_image_path": "data.mask",
        "run.perceptual_loss_weight": "run.loss_weights.lpips",
        "run.recon_loss_weight": "run.loss_weights.recon",
        "run.sync_loss_weight": "run.loss_weights.sync",
        "run.trepa_loss_weight": "run.loss_weights.trepa",
    },
    {
        "run.pixel_space_supervise": ("run.loss_weights.sync", "run.loss_weights.lpips", "run.loss_weights.trepa"),
        "run.use_syncnet": ("run.loss_weights.sync",),
    },
    {f"model.{name}_encoder": "is a key of SyncNet; give a file of configs/unet" for name in ("audio", "visual")},
    {"data.mask": MASK_NAMES},
)
SYNCNET_KEYS = PublishedKeys(
    PINNED,
    frozenset((*IGNORED, "ckpt.inference_ckpt_path")),
    {
        **RENAMED,
        "data.gradient_accumulation_steps": "run.gradient_accumulation_steps",
        "data.num_val_samples": "run.num_val_clips",
    },
    foreign=dict.fromkeys(
        ("model.block_out_channels", "model.cross_attention_dim", "model.use_motion_module", "data.syncnet_config_path"),
        "is a key of the denoiser; give a file of configs/syncnet",
    ),
)


def current_values(
    entries: Sequence[tuple[str, Any]], current: frozenset[str], published: PublishedKeys, where: str
) -> tuple[dict[str, Any], list[str]]:
    """Sort the (dotted key, value) entries of a YAML file: the current keys with their values, and the ignored keys that were found.

    `current` are the keys that this code reads. Raises ConfigError where a key is unknown, has another value than the one it is pinned to,
    or contradicts its current name; `where` names the file.
    """
    known = current.union(published.pinned, published.ignored, published.renamed, published.switches)
    values: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    ignored: list[str] = []
    written = {key for key, _ in entries}
    for key, value in entries:
        if value is None and any(name.startswith(f"{key}.") for name in known):
            continue  # a section without entries
        if (new := OLD_KEYS.get(key)) in current:
            if new in written:
                raise ConfigError(f"{where}: '{key}' is the old name of '{new}'; keep the new one alone")
            logger.warning("%s: '%s' is called '%s' now; the old name is read for one more release", where, key, new)
            key = new
        if key not in known:
            raise ConfigError(f"{where}: {unknown_key(key, known, published.foreign)}")
        if key in current:
            values[key] = usual_spelling(key, value)
        elif key in published.pinned:
            check_pinned(key, value, published.pinned[key], where)
        elif key in published.ignored:
            ignored.append(key)
        else:
            theirs[key] = value
    for key, (name, value) in translated(theirs, published, where).items():
        if values.setdefault(key, value) != value:
            raise ConfigError(f"{where}: '{name}' and '{key}' say different things; keep one of them")
    return values, ignored


def translated(theirs: Mapping[str, Any], published: PublishedKeys, where: str) -> dict[str, tuple[str, Any]]:
    """Published keys as current key -> (published key, current value); a switch that is off wins over a weight beside it."""
    found: dict[str, tuple[str, Any]] = {}
    for name, value in theirs.items():
        if name == PRECISION_SWITCH:
            value = "fp16" if is_on(value, f"{where}: '{name}' is {value!r}") else "no"
        if name in published.renamed:
            found[published.renamed[name]] = (name, value)
    for name, keys in published.switches.items():
        if name in theirs and not is_on(theirs[name], f"{where}: '{name}' is {theirs[name]!r}"):
            found |= dict.fromkeys(keys, (name, 0.0))
    return found


def usual_spelling(key: str, value: Any) -> Any:
    """Values of current keys that may be written in two ways, in the usual one."""
    if key == "data.mask" and value == FIX_MASK:
        return MASK_NAMES[0]
    if key == "run.mixed_precision" and value is False:
        return "no"  # what YAML makes of a bare `no`
    if key == "run.trainable_modules" and (value is None or isinstance(value, list)):
        return [name for name in value or () if name not in (None, "")]  # an empty name fits every parameter, as an empty list does
    return value


def without_attention(values: Mapping[str, Any], current: frozenset[str]) -> dict[str, list[int]]:
    """Attention flags for the encoders of a file that gives widths and no flags: none, which is what published files without them mean."""
    missing: dict[str, list[int]] = {}
    for key, widths in values.items():
        flags = f"{key.rpartition('.')[0]}.attn_blocks"
        if key.endswith(".block_out_channels") and flags in current and flags not in values and isinstance(widths, list):
            missing[flags] = [0] * len(widths)
    return missing


def leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every (dotted key, value) of nested mappings, in file order; a list is a value."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        found += leaves(value, f"{key}.") if isinstance(value, dict) and value else [(key, None if value == {} else value)]
    return found


def check_pinned(key: str, value: Any, accepted: tuple[Any, ...], where: str) -> None:
    """Refuse another value than the ones the method fixes; 1 is not taken for `true`, nor 0 for `false`."""
    if not any(value == fixed and isinstance(value, bool) == isinstance(fixed, bool) for fixed in accepted):
        names = " or ".join(repr(fixed) for fixed in accepted)
        raise ConfigError(f"{where}: '{key}' is {value!r}, but only {names} is built here; set that or leave the key out")


def unknown_key(key: str, known: frozenset[str], foreign: Mapping[str, str]) -> str:
    """The sentence about a key that nobody knows, with the nearest known one: a slip of the hand, the wrong section, the wrong file."""
    for start, advice in foreign.items():
        if key == start or key.startswith(f"{start}."):
            return f"'{key}' {advice}"
    if any(name.startswith(f"{key}.") for name in known):
        return f"'{key}' is a section with keys of its own, not a single value"
    leaf = key.rpartition(".")[2]
    elsewhere = [name for name in sorted(known) if name.rpartition(".")[2] == leaf]
    near = elsewhere or get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    if not near:
        by_leaf = {name.rpartition(".")[2]: name for name in sorted(known)}
        near = [by_leaf[match] for match in get_close_matches(leaf, by_leaf, n=1, cutoff=0.7)]
    return f"unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else "; remove it")
