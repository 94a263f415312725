"""Train a small autoencoder: `python -m scripts.train_autoencoder data.train_data_dir=CLIPS data.val_data_dir=OTHER_CLIPS`.

A trained one becomes the folder that configurations name as weights.vae: `... --export CHECKPOINT FOLDER --clips CLIPS`.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.training import parse_arguments, run_training, start_training

logger = logging.getLogger("latentsync")

COMMAND = "python -m scripts.train_autoencoder"
DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "embedded" / "autoencoder.yaml"


def work(parsed: argparse.Namespace) -> bool:
    """Train; False where it was stopped before the end."""
    from latentsync.autoencoder_config import load_autoencoder_config
    from latentsync.config_reading import dump

    config = load_autoencoder_config(parsed.config_path, parsed.overrides)
    if parsed.print_config:
        print(dump(config), end="")
        return True
    from latentsync.training.autoencoder_build import build_autoencoder
    from latentsync.training.build import make_accelerator

    accelerator = make_accelerator(config.run, parsed.device)
    return start_training(config, accelerator, lambda: build_autoencoder(config, accelerator, not parsed.quiet), parsed)


def export(parsed: argparse.Namespace) -> bool:
    """Write a trained autoencoder as a folder."""
    import torch

    from latentsync.training.autoencoder_build import export_autoencoder

    checkpoint, folder = parsed.export
    export_autoencoder(checkpoint, folder, parsed.clips, torch.float16 if parsed.half else torch.float32)
    logger.info("The autoencoder is in %s", folder)
    return True


def export_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of an export; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write a trained autoencoder as a folder in the layout of diffusers.")
    parser.add_argument("--export", nargs=2, type=Path, metavar=("CHECKPOINT", "FOLDER"), required=True, help="what is written, and where")
    parser.add_argument("--clips", type=Path, required=True, help="aligned faces; their latents will have mean 0 and variance 1")
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("--verbose", action="store_true", help="tell more, and show where an unexpected failure happened")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--export" in arguments:
        return run_training(export, export_arguments(arguments))
    description = (
        "Train a small autoencoder on a folder of processed clips (aligned faces, 25 frames a second, with sound). "
        "With --export CHECKPOINT FOLDER --clips CLIPS: write a trained one as a folder for weights.vae."
    )
    return run_training(work, parse_arguments(COMMAND, description, DEFAULT_CONFIG, arguments))


if __name__ == "__main__":
    sys.exit(main())
