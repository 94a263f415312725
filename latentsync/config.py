"""The dataclasses behind the YAML files of the denoiser, and the loaders of both kinds of files: the denoiser's and SyncNet's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentsync.config_checks import Rule, check_syncnet, enforce, shared_rules, unet_training_rules
from latentsync.config_reading import Source, dump, read_config
from latentsync.constants import ATTENTION_HEADS, MAX_FRAMES, MOTION_NORM_GROUPS, VAE_FACTOR
from latentsync.published_config import MASK_NAMES, SYNCNET_KEYS, UNET_KEYS
from latentsync.training_config import CkptConfig, OptimizerConfig, SyncNetConfig, TrainingDataConfig, UNetRunConfig, VideoMAEConfig

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
class DataConfig(TrainingDataConfig):
    """What one clip is: picture size, frames, how much sound each frame hears, what is hidden; and where clips for training come from."""

    resolution: int = 256  # side of the aligned face, pixels
    num_frames: int = 16  # frames in a clip
    audio_feat_length: list[int] = field(default_factory=lambda: [2, 2])  # video frames of sound heard before and after each frame
    mask: str = "mask"  # which fixed mask: "mask", "mask2", "mask3", "mask4"; or the path of a picture, white = keep
    audio_dropout: float = 0.0  # share of training clips that hear nothing, so that guidance has a trained other half
    counterfactual: bool = False  # train clips that have a twin (other words, all else alike: rendered heads) to be painted over it
    cache_latents: bool = False  # encode each clip once and keep its latents on disk
    syncnet_config_path: Path | None = None  # YAML of the SyncNet that judges
    val_video_path: Path | None = None  # a video that validation gives the words of ...
    val_audio_path: Path | None = None  # ... this recording; without both there is no validation video


@dataclass
class WeightsConfig:
    """Files of the networks; in a YAML file relative to its folder, in an override to the working folder. None: the default place."""

    unet: Path | None = None  # the denoiser's checkpoint
    vae: Path | None = None  # a folder in the layout of diffusers
    whisper: Path | None = None  # the audio encoder's checkpoint
    syncnet: Path | None = None  # training: the judge of lips and sound
    vgg16: Path | None = None  # training: the network behind LPIPS
    videomae: Path | None = None  # training: the network behind TREPA
    mouth_reader: Path | None = None  # training: this project's own judge of how mouths look and move; None: none


@dataclass
class Config:
    """One configuration of the method: clips, denoiser, weight files, and how the denoiser is trained."""

    data: DataConfig = field(default_factory=DataConfig)
    model: UNetConfig = field(default_factory=UNetConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    videomae: VideoMAEConfig = field(default_factory=VideoMAEConfig)
    run: UNetRunConfig = field(default_factory=UNetRunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration of a denoiser: a file of ours, or one published with versions 1.0, 1.5 or 1.6.

    Args:
        path: the YAML file; relative paths in it are counted from its folder.
        overrides: dotted settings that win over the file, such as "data.resolution=512"; paths in them are counted from the working folder.

    Returns:
        the checked configuration, with absolute paths. Whether they exist is not looked at: inference needs none of those for training.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type or cannot be honoured.
    """
    config, source = read_config(Config, UNET_KEYS, path, overrides)
    check_unet(config, source)
    return config


def load_syncnet_config(path: Path | str, overrides: Sequence[str] = ()) -> SyncNetConfig:
    """Read the configuration of a SyncNet, ours or published; like `load_config`."""
    config, source = read_config(SyncNetConfig, SYNCNET_KEYS, path, overrides)
    check_syncnet(config, source)
    return config


def dump_config(config: Config | SyncNetConfig) -> str:
    """The configuration as YAML that its loader reads back."""
    return dump(config)


def check_unet(config: Config, source: Source) -> None:
    """Refuse values that no network, picture or training can have; `source` is named in the ConfigError."""
    data, model = config.data, config.model
    widths, groups = model.block_out_channels, model.norm_num_groups
    heard = data.audio_feat_length
    divisors = {ATTENTION_HEADS, groups} | ({MOTION_NORM_GROUPS} if model.use_motion_module else set())
    rules = [
        Rule(
            "data.resolution",
            data.resolution >= MIN_RESOLUTION and data.resolution % VAE_FACTOR == 0,
            f"a multiple of {VAE_FACTOR}, {MIN_RESOLUTION} or more",
        ),
        Rule("data.num_frames", 1 <= data.num_frames <= MAX_FRAMES, f"between 1 and {MAX_FRAMES}"),
        Rule("data.audio_feat_length", len(heard) == 2 and min(heard) >= 0, "two whole numbers, 0 or more"),
        Rule("data.mask", data.mask in MASK_NAMES or Path(data.mask).is_absolute(), f"one of {', '.join(MASK_NAMES)}, or a picture's path"),
        Rule("model.layers_per_block", model.layers_per_block >= 1, "1 or more"),
        Rule("model.norm_num_groups", groups >= 1, "1 or more"),
        Rule("model.cross_attention_dim", model.cross_attention_dim >= 1, "1 or more"),
        Rule(
            "model.block_out_channels",
            len(widths) == LEVELS and min(widths) > 0 and groups >= 1 and not any(width % d for width in widths for d in divisors),
            f"{LEVELS} widths, each a multiple of {' and '.join(map(str, sorted(divisors)))}",
        ),
        Rule("data.audio_dropout", 0 <= data.audio_dropout <= 1, "a share between 0 and 1"),
        *together("data.val_audio_path", "data.val_video_path", data.val_audio_path, data.val_video_path),
        *shared_rules(data, config.run, config.optimizer, config.ckpt),
        *unet_training_rules(config.run, config.videomae),
    ]
    enforce(config, rules, source)


def together(first: str, second: str, one: Path | None, other: Path | None) -> list[Rule]:
    """The rules for two paths of which neither is of use alone."""
    return [
        Rule(key, value is not None or partner is None, f"set together with '{name}', or both must be left out")
        for key, value, name, partner in ((first, one, second, other), (second, other, first, one))
    ]
