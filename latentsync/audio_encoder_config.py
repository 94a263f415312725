"""The dataclasses behind the YAML files of an audio encoder of Whisper's architecture that is trained on speech with known phones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentsync.config_checks import Rule, at_least, enforce, multiple_of, shared_rules
from latentsync.config_reading import Source, read_config
from latentsync.published_config import NOT_PUBLISHED
from latentsync.training_config import CkptConfig, OptimizerConfig, RunConfig, TrainingDataConfig

LEAST_CONTEXT = 50  # steps: one second


@dataclass
class AudioEncoderDataConfig(TrainingDataConfig):
    """What the encoder hears: folders of recordings, each with the truth about it beside it."""

    batch_size: int = 8  # pieces as long as the encoder's context


@dataclass
class AudioEncoderModelConfig:
    """Sizes of the encoder, by Whisper's names; everything else about it is fixed by its file format."""

    n_audio_ctx: int = 1500  # steps (20 ms) that are heard at once
    n_audio_state: int = 128  # width of an audio token
    n_audio_head: int = 4
    n_audio_layer: int = 3


@dataclass
class AudioEncoderRunConfig(RunConfig):
    """... and how it learns."""

    loss_weights: dict[str, float] = field(default_factory=lambda: {"phone": 1.0, "mouth": 1.0, "scale": 0.1})


@dataclass
class AudioEncoderConfig:
    """One audio encoder and how it is trained."""

    data: AudioEncoderDataConfig = field(default_factory=AudioEncoderDataConfig)
    model: AudioEncoderModelConfig = field(default_factory=AudioEncoderModelConfig)
    run: AudioEncoderRunConfig = field(default_factory=AudioEncoderRunConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ckpt: CkptConfig = field(default_factory=CkptConfig)


def load_audio_encoder_config(path: Path | str, overrides: Sequence[str] = ()) -> AudioEncoderConfig:
    """Read the configuration of an audio encoder.

    Args:
        path: the YAML file; relative paths in it are counted from its folder.
        overrides: dotted settings that win over the file, such as "data.batch_size=4"; paths in them are counted from the working folder.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value has the wrong type or cannot be honoured.
    """
    config, source = read_config(AudioEncoderConfig, NOT_PUBLISHED, path, overrides)
    check_audio_encoder(config, source)
    return config


def check_audio_encoder(config: AudioEncoderConfig, source: Source) -> None:
    """Refuse values that no encoder or training can have; `source` is named in the ConfigError."""
    data, model = config.data, config.model
    rules = [
        *at_least(LEAST_CONTEXT, "model", model, "n_audio_ctx"),
        *at_least(1, "model", model, "n_audio_head", "n_audio_layer"),
        Rule("model.n_audio_state", model.n_audio_state >= 4 and model.n_audio_state % 2 == 0, "an even number, 4 or more"),
        *multiple_of("model", model, "n_audio_state", "n_audio_head"),
        *(
            Rule(
                f"data.{name}", not getattr(data, name), "left out: speech is read from data.train_data_dir and data.val_data_dir as it is"
            )
            for name in ("train_fileslist", "val_fileslist", "cache_dir", "cache_faces")
        ),
        *shared_rules(data, config.run, config.optimizer, config.ckpt),
    ]
    enforce(config, rules, source)
