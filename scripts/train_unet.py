"""Train the denoiser: `./train_unet.sh --unet_config_path configs/unet/stage1.yaml data.train_data_dir=CLIPS`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.config import Config, load_config
from scripts.training import parse_arguments, train

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from latentsync.training.trainer import TrainingTask

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "unet" / "stage1.yaml"


def build(config: Config, accelerator: "Accelerator", show_progress: bool) -> "TrainingTask":
    """Everything the training needs, the validation video included."""
    from latentsync.training.unet import build_unet, load_training_codec
    from scripts.validation_video import make_video_validator

    codec = load_training_codec(config, accelerator)
    task = build_unet(config, codec, accelerator, show_progress)
    video = make_video_validator(config, codec, accelerator)
    return task if video is None else replace(task, validators=[*task.validators, video])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train the denoiser on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return train(parse_arguments("train_unet.sh", description, DEFAULT_CONFIG, arguments), load_config, build)


if __name__ == "__main__":
    sys.exit(main())
