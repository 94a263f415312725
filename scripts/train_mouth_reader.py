"""Train the reader of mouths: `python -m scripts.train_mouth_reader data.train_data_dir=CLIPS data.val_data_dir=OTHER_CLIPS`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.training import parse_arguments, run_training, start_training

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "embedded" / "mouth_reader.yaml"


def work(parsed: argparse.Namespace) -> bool:
    """Train; False where it was stopped before the end."""
    from latentsync.config_reading import dump
    from latentsync.mouth_reader_config import load_mouth_reader_config

    config = load_mouth_reader_config(parsed.config_path, parsed.overrides)
    if parsed.print_config:
        print(dump(config), end="")
        return True
    from latentsync.training.build import make_accelerator
    from latentsync.training.mouth_reader_build import build_mouth_reader

    accelerator = make_accelerator(config.run, parsed.device)
    return start_training(config, accelerator, lambda: build_mouth_reader(config, accelerator, not parsed.quiet), parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train a network that reads the landmarks of the mouth off aligned faces, on rendered clips with their truth."
    return run_training(work, parse_arguments("python -m scripts.train_mouth_reader", description, DEFAULT_CONFIG, arguments))


if __name__ == "__main__":
    sys.exit(main())
