"""Train SyncNet: `./train_syncnet.sh data.train_data_dir=CLIPS data.val_data_dir=OTHER_CLIPS`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.training import parse_arguments, train

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from latentsync.config import SyncNetConfig
    from latentsync.training.trainer import TrainingTask

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "syncnet" / "syncnet_16_pixel_attn.yaml"


def load(path: Path, overrides: Sequence[str]) -> "SyncNetConfig":
    """The recipe with its overrides."""
    from latentsync.config import load_syncnet_config

    return load_syncnet_config(path, overrides)


def build(config: "SyncNetConfig", accelerator: "Accelerator", show_progress: bool) -> "TrainingTask":
    """Everything the training needs."""
    from latentsync.training.syncnet import build_syncnet

    return build_syncnet(config, accelerator, show_progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train SyncNet on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return train(parse_arguments("train_syncnet.sh", description, DEFAULT_CONFIG, arguments), load, build)


if __name__ == "__main__":
    sys.exit(main())
