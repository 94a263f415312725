"""The YAML files published with versions 1.0, 1.5 and 1.6: which of their keys live here, which are pinned, which are dead."""

from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

from latentsync.constants import ATTENTION_HEADS, AUDIO_SAMPLE_RATE, LATENT_CHANNELS, UNET_IN_CHANNELS, VIDEO_FPS
from latentsync.errors import ConfigError

MASK_NAMES = ("mask", "mask2", "mask3", "mask4")

# Keys that published files set and that the method fixes: each is accepted at these values, because nothing else is built here.
PINNED: dict[str, tuple[Any, ...]] = {
    "data.audio_sample_rate": (AUDIO_SAMPLE_RATE,),
    "data.video_fps": (VIDEO_FPS,),
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

# Keys that published files set and that nothing here reads: they belong to training, or were never used.
DEAD: dict[str, tuple[str, ...]] = {
    "data": (
        "audio_cache_dir",
        "audio_embeds_cache_dir",
        "audio_mel_cache_dir",
        "batch_size",
        "data_dir",
        "num_workers",
        "syncnet_config_path",
        "train_data_dir",
        "train_fileslist",
        "train_output_dir",
        "val_audio_path",
        "val_video_path",
    ),
    "ckpt": ("resume_ckpt_path", "save_ckpt_steps"),
    "run": (
        "enable_gradient_checkpointing",
        "enable_xformers_memory_efficient_attention",
        "guidance_scale",
        "inference_steps",
        "max_train_epochs",
        "max_train_steps",
        "mixed_noise_alpha",
        "mixed_precision_training",
        "perceptual_loss_weight",
        "pixel_space_supervise",
        "recon_loss_weight",
        "seed",
        "sync_loss_weight",
        "trainable_modules",
        "trepa_loss_weight",
        "use_mixed_noise",
        "use_syncnet",
    ),
    "optimizer": ("lr", "lr_scheduler", "lr_warmup_steps", "max_grad_norm", "scale_lr"),
    "model": ("sample_size",),
}
DEAD_KEYS = frozenset(f"{section}.{key}" for section, keys in DEAD.items() for key in keys)
MASK_PATH_KEY = "data.mask_image_path"  # the way of 1.5 and 1.6 to name a mask: a picture of it
FIX_MASK = "fix_mask"  # the way of 1.0: it has one fixed mask


def living_values(tree: dict[str, Any], living: frozenset[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """Sort the keys of a YAML tree.

    Args:
        tree: nested mappings as they stand in the file.
        living: dotted names of the keys that this code reads.
        where: the file, for error messages.

    Returns:
        the living keys with their values, and the dead keys that were found; both by dotted name.

    Raises:
        ConfigError: a key is unknown, or is pinned and has a value that this code does not honour.
    """
    known = living | PINNED.keys() | DEAD_KEYS | {MASK_PATH_KEY}
    values: dict[str, Any] = {}
    dead: list[str] = []
    pictured: str | None = None
    for key, value in leaves(tree):
        if value is None and any(name.startswith(f"{key}.") for name in known):
            continue  # a section without entries
        if key not in known:
            raise ConfigError(f"{where}: {unknown_key(key, known)}")
        if key in living:
            values[key] = value
        elif key in PINNED:
            check_pinned(key, value, where)
        elif key in DEAD_KEYS:
            dead.append(key)
        else:
            pictured = mask_of_picture(value, where)
    if values.get("data.mask") == FIX_MASK:
        values["data.mask"] = MASK_NAMES[0]
    if pictured is not None and values.setdefault("data.mask", pictured) != pictured:
        raise ConfigError(f"{where}: '{MASK_PATH_KEY}' and 'data.mask' name two different masks; keep one of them")
    return values, dead


def mask_of_picture(value: Any, where: str) -> str:
    """The name of the fixed mask that a published picture path, such as "some/folder/mask2.png", stands for."""
    name = PurePosixPath(str(value)).stem
    if name not in MASK_NAMES:
        raise ConfigError(f"{where}: '{MASK_PATH_KEY}' is {value!r}, but only the masks {', '.join(MASK_NAMES)} are built here")
    return name


def leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every (dotted key, value) of nested mappings, in file order; a list is a value."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        found += leaves(value, f"{key}.") if isinstance(value, dict) and value else [(key, None if value == {} else value)]
    return found


def check_pinned(key: str, value: Any, where: str) -> None:
    """Refuse another value than the ones the method fixes; 1 is not taken for `true`, nor 0 for `false`."""
    accepted = PINNED[key]
    if not any(value == fixed and isinstance(value, bool) == isinstance(fixed, bool) for fixed in accepted):
        names = " or ".join(repr(fixed) for fixed in accepted)
        raise ConfigError(f"{where}: '{key}' is {value!r}, but only {names} is built here; set that or leave the key out")


def unknown_key(key: str, known: set[str] | frozenset[str]) -> str:
    """The sentence about a key that nobody knows, with the nearest known one: a slip of the hand, or the wrong section."""
    if any(name.startswith(f"{key}.") for name in known):
        return f"'{key}' is a section with keys of its own, not a single value"
    leaf = key.rpartition(".")[2]
    elsewhere = [name for name in sorted(known) if name.rpartition(".")[2] == leaf]
    near = elsewhere or get_close_matches(key, sorted(known), n=1, cutoff=0.75)
    if not near:
        by_leaf = {name.rpartition(".")[2]: name for name in sorted(known)}
        near = [by_leaf[match] for match in get_close_matches(leaf, by_leaf, n=1, cutoff=0.7)]
    return f"unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else "; remove it")


def summary(dead: list[str]) -> str:
    """Dead keys for one warning: a section that is dead as a whole by its name, the others one by one."""
    whole = [section for section in ("ckpt", "run", "optimizer") if any(key.startswith(f"{section}.") for key in dead)]
    single = [key for key in dead if key.partition(".")[0] not in whole]
    return ", ".join([*single, *(f"{section}.*" for section in whole)])
