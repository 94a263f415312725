"""The dataclasses behind the YAML file of the mouth reader, and its loader."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentsync.config_checks import Rule, at_least, enforce, shared_rules
from latentsync.config_reading import read_config
from latentsync.published_config import NOT_PUBLISHED
from latentsync.training_config import CkptConfig, OptimizerConfig, RunConfig, TrainingDataConfig

READER_STAGES = 4  # stages of the network, each at half the resolution of the one before
READER_NORM_GROUPS = 8  # groups of its norms, which divide every width


@dataclass
class MouthReaderModelConfig:
    """Sizes of the mouth reader."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128])  # width of each stage
    head_channels: int = 64  # width of a cell of the last stage as the head sees it
    hidden: int = 192  # width inside the head


@dataclass
class MouthReaderDataConfig(TrainingDataConfig):
    """What the mouth reader looks at: frames from anywhere in rendered clips, which tell where the lips are."""

    num_frames: int = 4  # frames of each clip in a sample
    batch_size: int = 16


@dataclass
class MouthReaderRunConfig(RunConfig):
    """... for the mouth reader."""

    loss_weights: dict[str, float] = field(default_factory=lambda: {"landmarks": 1.0, "opening": 1.0})


@dataclass
class MouthReaderConfig:
    """One mouth reader and how it is trained."""

    data: MouthReaderDataConfig = field(default_factory=MouthReaderDataConfig)
    model: MouthReaderModelConfig = field(default_factory=MouthReaderModelConfig)
    run: MouthReaderRunConfig = field(default_factory=MouthReaderRunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)


def load_mouth_reader_config(path: Path | str, overrides: Sequence[str] = ()) -> MouthReaderConfig:
    """Read the configuration of a mouth reader; see `latentsync.config.load_config`. Raises ConfigError."""
    config, source = read_config(MouthReaderConfig, NOT_PUBLISHED, path, overrides)
    rules = [
        *at_least(1, "data", config.data, "num_frames"),
        *model_rules(config.model),
        *shared_rules(config.data, config.run, config.optimizer, config.ckpt),
    ]
    enforce(config, rules, source)
    return config


def model_rules(model: MouthReaderModelConfig) -> list[Rule]:
    """What sizes a mouth reader can have."""
    widths = model.block_out_channels
    return [
        Rule(
            "model.block_out_channels",
            len(widths) == READER_STAGES and all(width > 0 and width % READER_NORM_GROUPS == 0 for width in widths),
            f"{READER_STAGES} widths, each a multiple of {READER_NORM_GROUPS}",
        ),
        *at_least(1, "model", model, "head_channels", "hidden"),
    ]
