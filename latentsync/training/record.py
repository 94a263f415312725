"""The configuration beside what was trained with it, so that an output folder explains itself and is not mixed with another."""

import logging
from pathlib import Path

import yaml

from latentsync.config import Config, dump_config
from latentsync.errors import ConfigError
from latentsync.media.files import write_text
from latentsync.training_config import SyncNetConfig

logger = logging.getLogger(__name__)

FILE = "config.yaml"
FIXED = ("data.num_frames", "data.latent_space", "data.lower_half", "run.trainable_modules", "optimizer.name")
PRESENT = ("run.loss_weights.mouth",)  # may change, but not from or to 0: a part of the network hangs on it


def check_config(config: Config | SyncNetConfig, folder: Path) -> None:
    """Say what has changed in a configuration since a training began in this folder.

    Raises ConfigError where the folder holds the training of another network.
    """
    path, text = folder / FILE, dump_config(config)
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if isinstance(before, dict) and (folder / "resume").is_dir():
        after = yaml.safe_load(text)
        changed = differences(before, after)
        appeared = [key for key in PRESENT if key in changed and bool(entry(before, key)) != bool(entry(after, key))]
        broken = [key for key in changed if key.startswith("model.") or key in FIXED or key in appeared]
        if broken:
            raise ConfigError(
                f"{folder} holds a training with another {broken[0]}, which cannot go on with this one: set another data.train_output_dir."
            )
        if changed:
            logger.info("Changed since the last start: %s", ", ".join(changed))


def keep_config(config: Config | SyncNetConfig, folder: Path) -> None:
    """Write the configuration into an output folder. Raises OutputError."""
    write_text(folder / FILE, dump_config(config))


def entry(tree: dict, key: str) -> object:
    """The value behind a dotted key; None where there is none."""
    value: object = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def differences(before: dict, after: dict, prefix: str = "") -> list[str]:
    """Dotted names of the entries in which two trees differ."""
    found: list[str] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}")
    return found
