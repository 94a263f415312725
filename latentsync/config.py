"""The dataclasses behind the YAML files (OmegaConf structured configs), and `load_config`."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from latentsync.constants import ATTENTION_HEADS, MAX_FRAMES, MOTION_NORM_GROUPS, VAE_FACTOR
from latentsync.errors import ConfigError
from latentsync.published_config import MASK_NAMES, living_values, summary

logger = logging.getLogger(__name__)

LEVELS = 4  # levels of the denoiser: three with attention, one without
MIN_RESOLUTION = 64  # pixels: eight latent cells, the least that three halvings leave something of


@dataclass
class UNetConfig:
    """Sizes of the denoiser; everything else about it is fixed by the method."""

    block_out_channels: list[int] = field(default_factory=lambda: [320, 640, 1280, 1280])  # width of each level
    layers_per_block: int = 2
    norm_num_groups: int = 32  # groups of the convolution blocks' norms
    cross_attention_dim: int = 384  # width of an audio token: 384 for Whisper tiny, 768 for small
    use_motion_module: bool = True  # attention along time
    motion_module_decoder_only: bool = False  # ... in the up path alone


@dataclass
class DataConfig:
    """What one clip is: picture size, frames, how much sound each frame hears, what is hidden."""

    resolution: int = 256  # side of the aligned face, pixels
    num_frames: int = 16  # frames in a clip
    audio_feat_length: list[int] = field(default_factory=lambda: [2, 2])  # video frames of sound heard before and after each frame
    mask: str = "mask"  # which fixed mask: "mask", "mask2", "mask3", "mask4"


@dataclass
class WeightsConfig:
    """Files of the networks; in a YAML file relative to its folder, in an override to the working folder. None: the default place."""

    unet: Path | None = None  # the denoiser's checkpoint
    vae: Path | None = None  # a folder in the layout of diffusers
    whisper: Path | None = None  # the audio encoder's checkpoint


@dataclass
class Config:
    """One configuration of the method: clips, denoiser, weight files."""

    data: DataConfig = field(default_factory=DataConfig)
    model: UNetConfig = field(default_factory=UNetConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)


SECTIONS = {"data": DataConfig, "model": UNetConfig, "weights": WeightsConfig}
LIVING_KEYS = frozenset(f"{section}.{entry.name}" for section, kind in SECTIONS.items() for entry in fields(kind))


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, ours or one published with versions 1.0, 1.5 or 1.6.

    Args:
        path: the YAML file.
        overrides: dotted settings that win over the file, such as "data.resolution=512".

    Returns:
        the checked configuration, with absolute weight paths.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type or cannot be honoured.
    """
    path, where = Path(path), str(path)
    values, dead = living_values(read_yaml(path), LIVING_KEYS, where)
    resolve_weights(values, path.absolute().parent)
    if dead:
        logger.warning("%s: these keys of published files have no effect here: %s", path, summary(dead))
    if overrides:
        source = f"override {' '.join(overrides)}"
        changed, ignored = living_values(read_overrides(overrides), LIVING_KEYS, source)
        if ignored:
            raise ConfigError(f"{source}: '{ignored[0]}' has no effect here; leave it out")
        resolve_weights(changed, Path.cwd())
        values, where = values | changed, f"{path} with {source}"
    config = to_config(values, where)
    check_config(config, where)
    return config


def dump_config(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back."""
    tree = OmegaConf.to_container(OmegaConf.structured(config))
    tree["weights"] = {name: str(value) if value is not None else None for name, value in tree["weights"].items()}
    return OmegaConf.to_yaml(OmegaConf.create(tree))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as nested plain mappings; ConfigError says why it cannot be one."""
    try:
        loaded = OmegaConf.load(path)
        tree = OmegaConf.to_container(loaded, resolve=True) if isinstance(loaded, DictConfig) else None
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror or 'not a YAML file'}); check the path") from error
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: this is not a valid YAML file ({one_line(error)})") from error
    if not tree:
        raise ConfigError(f"{path}: the configuration holds no sections; it needs at least one of {', '.join(SECTIONS)}")
    return tree


def read_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted settings as nested plain mappings."""
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not all(key.strip().split(".")):
            raise ConfigError(f"override '{override}': write it as section.key=value, such as data.resolution=512")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"override {' '.join(overrides)}: {one_line(error)}") from error


def resolve_weights(values: dict[str, Any], folder: Path) -> None:
    """Make the weight paths among dotted `values` absolute, in place; other types are left for `to_config` to refuse."""
    for key, value in values.items():
        if key.startswith("weights.") and isinstance(value, str | Path):
            values[key] = (folder / Path(value).expanduser()).resolve()


def to_config(values: Mapping[str, Any], where: str) -> Config:
    """Dotted values on top of the defaults; a value of the wrong type is a ConfigError."""
    schema = OmegaConf.structured(Config)
    for key, value in values.items():
        try:
            OmegaConf.update(schema, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{where}: '{key}' cannot be {value!r} ({one_line(error)})") from error
    return OmegaConf.to_object(schema)


def check_config(config: Config, where: str) -> None:
    """Refuse values that no network or picture can have; `where` names the file in the ConfigError."""
    data, model = config.data, config.model
    widths, groups = model.block_out_channels, model.norm_num_groups
    heard = data.audio_feat_length
    divisors = {ATTENTION_HEADS, groups} | ({MOTION_NORM_GROUPS} if model.use_motion_module else set())
    rules = [
        (
            "data.resolution",
            data.resolution >= MIN_RESOLUTION and data.resolution % VAE_FACTOR == 0,
            f"a multiple of {VAE_FACTOR}, {MIN_RESOLUTION} or more",
        ),
        ("data.num_frames", 1 <= data.num_frames <= MAX_FRAMES, f"between 1 and {MAX_FRAMES}"),
        ("data.audio_feat_length", len(heard) == 2 and min(heard) >= 0, "two whole numbers, 0 or more"),
        ("data.mask", data.mask in MASK_NAMES, f"one of {', '.join(MASK_NAMES)}"),
        ("model.layers_per_block", model.layers_per_block >= 1, "1 or more"),
        ("model.norm_num_groups", groups >= 1, "1 or more"),
        ("model.cross_attention_dim", model.cross_attention_dim >= 1, "1 or more"),
        (
            "model.block_out_channels",
            len(widths) == LEVELS and min(widths) > 0 and groups >= 1 and not any(width % d for width in widths for d in divisors),
            f"{LEVELS} widths, each a multiple of {' and '.join(map(str, sorted(divisors)))}",
        ),
    ]
    for key, holds, rule in rules:
        if not holds:
            section, name = key.split(".")
            raise ConfigError(f"{where}: '{key}' is {getattr(getattr(config, section), name)!r}, but it must be {rule}")


def one_line(error: Exception) -> str:
    """What a library says is wrong, on one line; with the line of the file where it knows."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"line {mark.line + 1}: {problem}"
    return str(error).strip().split("\n")[0].rstrip(".")
