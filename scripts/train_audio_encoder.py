"""Train a small audio encoder of Whisper's architecture: `python -m scripts.train_audio_encoder data.train_data_dir=SPEECH`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.training import parse_arguments, run_training, start_training

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "embedded" / "audio_encoder.yaml"


def work(parsed: argparse.Namespace) -> bool:
    """Train; False where it was stopped before the end."""
    from latentsync.audio_encoder_config import load_audio_encoder_config
    from latentsync.config_reading import dump

    config = load_audio_encoder_config(parsed.config_path, parsed.overrides)
    if parsed.print_config:
        print(dump(config), end="")
        return True
    from latentsync.training.audio_encoder_build import build_audio_encoder
    from latentsync.training.build import make_accelerator

    accelerator = make_accelerator(config.run, parsed.device)
    return start_training(config, accelerator, lambda: build_audio_encoder(config, accelerator), parsed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train an audio encoder of Whisper's architecture on speech whose phones and mouth movements are known."
    return run_training(work, parse_arguments("python -m scripts.train_audio_encoder", description, DEFAULT_CONFIG, arguments))


if __name__ == "__main__":
    sys.exit(main())
