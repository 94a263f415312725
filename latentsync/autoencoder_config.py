"""The dataclasses behind the YAML files of the small autoencoder, and their loader."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log2
from pathlib import Path

from latentsync.config_checks import Rule, at_least, enforce, shared_rules
from latentsync.config_reading import Source, read_config
from latentsync.constants import VAE_FACTOR
from latentsync.published_config import NOT_PUBLISHED
from latentsync.training_config import CkptConfig, OptimizerConfig, RunConfig, TrainingDataConfig

LEVELS = 1 + int(log2(VAE_FACTOR))  # resolutions of the network, each half the one before
MIN_CROP = 32  # pixels: what the critic's layers leave something of


@dataclass
class AutoencoderModelConfig:
    """Sizes of the autoencoder, and of the critic that it is trained with."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 96, 160])  # width of each level, full resolution first
    layers_per_block: int = 1
    norm_num_groups: int = 8
    critic_width: int = 32  # channels of the critic's first layer; each of the next two has twice as many


@dataclass
class AutoencoderDataConfig(TrainingDataConfig):
    """What pictures it learns from: crops of faces, and pictures of nothing in particular."""

    resolution: int = 256  # side of the aligned face, pixels
    crop: int = 128  # side of the pictures that it is trained on; as large as the face: whole faces
    num_frames: int = 4  # pictures of each clip in a sample
    general_share: float = 0.25  # share of the pictures that are dead leaves instead of faces
    masked_share: float = 0.1  # share of the pictures whose mouth is hidden, as inference encodes them
    mouth_weight: float = 1.0  # how much more the pixels around the mouth count in l1 and edge
    batch_size: int = 2


@dataclass
class AutoencoderRunConfig(RunConfig):
    """... how it learns."""

    loss_weights: dict[str, float] = field(
        default_factory=lambda: {"l1": 1.0, "edge": 1.0, "kl": 1e-4, "adversarial": 0.0, "features": 0.0, "critic": 0.0}
    )
    critic_start: int = 0  # steps before there is a critic


@dataclass
class AutoencoderConfig:
    """One autoencoder and how it is trained."""

    data: AutoencoderDataConfig = field(default_factory=AutoencoderDataConfig)
    model: AutoencoderModelConfig = field(default_factory=AutoencoderModelConfig)
    run: AutoencoderRunConfig = field(default_factory=AutoencoderRunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)


def load_autoencoder_config(path: Path | str, overrides: Sequence[str] = ()) -> AutoencoderConfig:
    """Read the configuration of an autoencoder's training; relative paths are counted from the file, in overrides from the working folder.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type or cannot be honoured.
    """
    config, source = read_config(AutoencoderConfig, NOT_PUBLISHED, path, overrides)
    check_autoencoder(config, source)
    return config


def check_autoencoder(config: AutoencoderConfig, source: Source) -> None:
    """Refuse values that no autoencoder or training can have; `source` is named in the ConfigError."""
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
            *at_least(1, "model", model, "layers_per_block", "norm_num_groups", "critic_width"),
            Rule(
                "model.block_out_channels",
                len(widths) == LEVELS and groups >= 1 and all(width > 0 and width % groups == 0 for width in widths),
                f"{LEVELS} widths, each a multiple of model.norm_num_groups, which is {groups}",
            ),
            *shared_rules(data, run, config.optimizer, config.ckpt),
            Rule(
                "run.loss_weights.critic",
                run.loss_weights["critic"] > 0 or not needs_critic(config),
                "more than 0: a critic that learns nothing has no opinion worth the weights of 'adversarial' and 'features'",
            ),
            *at_least(0, "run", run, "critic_start"),
        ],
        source,
    )


def needs_critic(config: AutoencoderConfig) -> bool:
    """Whether the autoencoder listens to a critic."""
    return config.run.loss_weights["adversarial"] > 0 or config.run.loss_weights["features"] > 0
