"""Train the denoiser: `./train_unet.sh --unet_config_path configs/unet/stage1.yaml data.train_data_dir=CLIPS`.

Other training commands share `train_command`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli import INTERRUPTED, add_version, run_command
from latentsync.config import Config, dump_config, load_config

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from latentsync.training.trainer import TrainingTask

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_CONFIG = ROOT / "configs" / "unet" / "stage1.yaml"


def build(config: Config, accelerator: "Accelerator", show_progress: bool) -> "TrainingTask":
    """Everything the training needs, the validation video included."""
    from latentsync.training.trainer import load_codec
    from latentsync.training.unet import build_unet
    from scripts.validation_video import make_video_validator

    codec = load_codec(config, accelerator, config.run.vae_slice_size or None)
    task = build_unet(config, codec, accelerator, show_progress)
    video = make_video_validator(config, codec, accelerator)
    return task if video is None else replace(task, validators=[*task.validators, video])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train the denoiser on a folder of processed clips (aligned faces, 25 frames a second, with sound)."
    return train_command(parse_arguments("train_unet.sh", description, DEFAULT_CONFIG, arguments), load_config, build)


def parse_arguments(command: str, description: str, default_config: Path, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a training; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        epilog="Run the same command again to resume. Exit codes: 0 done, 1 failed, 2 unusable input, 130 stopped and saved.",
    )
    add_version(parser)
    default_name = default_config.relative_to(ROOT)
    parser.add_argument(
        "--config_path", "--unet_config_path", type=Path, default=default_config, help=f"YAML file (default: {default_name})"
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto (default): the GPU if there is one; cpu: no GPU")
    parser.add_argument("--print_config", action="store_true", help="print the configuration with all overrides and stop")
    parser.add_argument("--dry_run", action="store_true", help="load and check everything, then stop before the first step")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")
    parser.add_argument("--verbose", action="store_true", help="more log messages, and the traceback of an unexpected error")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides of the configuration, such as data.train_data_dir=clips run.seed=7"
    )
    return parser.parse_intermixed_args(arguments)  # options and settings in any order


def train_command(
    parsed: argparse.Namespace, load: Callable[[Path, Sequence[str]], Any], build: "Callable[[Any, Accelerator, bool], TrainingTask]"
) -> int:
    """A training command; the exit code. `load` reads the configuration; `build` makes the task, its last argument: show progress."""

    def work() -> bool:
        config = load(parsed.config_path, parsed.overrides)
        if parsed.print_config:
            print(dump_config(config), end="")
            return True
        from latentsync.training.trainer import train

        return train(config, build, parsed)

    return run_training(work, parsed)


def run_training(work: Callable[[], bool], parsed: argparse.Namespace) -> int:
    """Do the work of a command line; the exit code. `work` says whether it came to its end, and handles signals itself."""
    again = "the same command goes on from the last checkpoint."
    quiet, verbose = parsed.quiet, parsed.verbose
    return run_command(lambda: 0 if work() else INTERRUPTED, "latentsync", again, quiet=quiet, verbose=verbose, signals=False)


if __name__ == "__main__":
    sys.exit(main())
