"""Train SyncNet: `./train_syncnet.sh data.train_data_dir=CLIPS data.val_data_dir=OTHER_CLIPS`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.config import SyncNetConfig, load_syncnet_config
from scripts.train_unet import parse_arguments, train_command

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from latentsync.training.trainer import TrainingTask

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "syncnet" / "syncnet_16_pixel_attn.yaml"


def build(config: SyncNetConfig, accelerator: "Accelerator", show_progress: bool) -> "TrainingTask":
    """Everything the training needs."""
    from latentsync.training.syncnet import build_syncnet

    return build_syncnet(config, accelerator, show_progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train SyncNet on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return train_command(parse_arguments("train_syncnet.sh", description, DEFAULT_CONFIG, arguments), load_syncnet_config, build)


if __name__ == "__main__":
    sys.exit(main())
