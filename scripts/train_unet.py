"""Train the denoiser: `./train_unet.sh --unet_config_path configs/unet/stage1.yaml data.train_data_dir=CLIPS`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.cli import run_training, training_arguments
from latentsync.config import Config, dump_config, load_config

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from latentsync.training.trainer import TrainingTask

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "unet" / "stage1.yaml"


def build(config: Config, accelerator: "Accelerator", show_progress: bool) -> "TrainingTask":
    """Everything the training needs, the validation video included."""
    from latentsync.training.trainer import load_codec
    from latentsync.training.unet import build_unet
    from scripts.validation_video import make_video_validator

    codec = load_codec(config, accelerator, config.run.vae_slice_size or None)
    task = build_unet(config, codec, accelerator, show_progress)
    video = make_video_validator(config, codec, accelerator)
    return task if video is None else replace(task, validators=[*task.validators, video])


def run(parsed: argparse.Namespace) -> bool:
    """Train, or print the recipe; False where the training was stopped before its end."""
    config = load_config(parsed.config_path, parsed.overrides)
    if parsed.print_config:
        print(dump_config(config), end="")
        return True
    from latentsync.training.trainer import train

    return train(config, build, parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train the denoiser on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return run_training(run, training_arguments("train_unet.sh", description, DEFAULT_CONFIG, arguments))


if __name__ == "__main__":
    sys.exit(main())
