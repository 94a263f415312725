"""What the training commands share: arguments, messages, exit codes."""

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli import INTERRUPTED, run_command
from latentsync.config import Config, SyncNetConfig, dump_config

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from accelerate import Accelerator

    from latentsync.training.trainer import TrainingTask

logger = logging.getLogger("latentsync")


def parse_arguments(command: str, description: str, default_config: Path, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a training; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        epilog="The same command goes on where it stopped. Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 stopped and saved.",
    )
    parser.add_argument("--config_path", "--unet_config_path", type=Path, default=default_config, help="YAML recipe (default %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu keeps everything off a GPU that is there")
    parser.add_argument("--print_config", action="store_true", help="print the recipe with all overrides and stop")
    parser.add_argument("--dry_run", action="store_true", help="load and check everything, then stop before the first step")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")
    parser.add_argument("--verbose", action="store_true", help="tell more, and show where an unexpected failure happened")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the recipe, such as data.train_data_dir=clips run.seed=7"
    )
    return parser.parse_intermixed_args(arguments)  # options and settings in any order


def start_training(
    config: Config | SyncNetConfig, accelerator: "Accelerator", build: "Callable[[], TrainingTask]", parsed: argparse.Namespace
) -> bool:
    """Build and train in the configuration's output folder; False where it was stopped before the end."""
    from latentsync.training.checkpoint import check_config, keep_config, output_lock
    from latentsync.training.trainer import Trainer, output_folder

    if not accelerator.is_main_process:
        logger.setLevel(logging.ERROR)
        for name in ("latentsync.training.trainer", "latentsync.data.features"):  # clips that only this process reads
            logging.getLogger(name).setLevel(logging.WARNING)
    folder = output_folder(config.data)
    with output_lock(folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            check_config(config, folder)
        task = build()
        if accelerator.is_main_process:
            keep_config(config, folder)
        trainer = Trainer(accelerator, task, config, show_progress=not parsed.quiet)
        if parsed.dry_run:
            logger.info("Everything is there; %d steps would be trained", config.run.max_train_steps)
            return True
        return trainer.train()


def run_training(work: Callable[[argparse.Namespace], bool], parsed: argparse.Namespace) -> int:
    """Do the work of a command line; the exit code. `work` says whether it came to its end, and handles signals itself."""
    again = "the same command goes on from the last checkpoint."
    quiet, verbose = parsed.quiet, parsed.verbose
    return run_command(lambda: 0 if work(parsed) else INTERRUPTED, "latentsync", again, quiet=quiet, verbose=verbose, signals=False)


def train(
    parsed: argparse.Namespace,
    load: "Callable[[Path, Sequence[str]], Any]",
    build: "Callable[[Any, Accelerator, bool], TrainingTask]",
) -> int:
    """A training command; the exit code. `load` reads recipe and overrides; `build` makes the task, its last argument: show progress."""

    def work(parsed: argparse.Namespace) -> bool:
        config = load(parsed.config_path, parsed.overrides)
        if parsed.print_config:
            print(dump_config(config), end="")
            return True
        from latentsync.training.trainer import make_accelerator

        accelerator = make_accelerator(config.run, parsed.device)
        return start_training(config, accelerator, lambda: build(config, accelerator, not parsed.quiet), parsed)

    return run_training(work, parsed)
