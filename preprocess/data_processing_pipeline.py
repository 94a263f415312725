"""A folder of raw video in, training clips out: the command behind ./data_processing_pipeline.sh."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from latentsync.cli import CODES, TEMP_DIR, accept_published, add_version, run_command
from latentsync.errors import InputError
from preprocess.manifest import MANIFEST_NAME, read_manifest
from preprocess.pipeline import gpu_devices, run_pipeline
from preprocess.report import REPORT_NAME, as_text, count_steps, write_report
from preprocess.runner import ONE_THREAD, Executor, LocalExecutor, PipelineConfig
from preprocess.step import Step, StepDefinition, options_of
from preprocess.steps import STEPS

logger = logging.getLogger("preprocess.pipeline")
ROOT = Path(__file__).parents[1]
FILTERS = [step.name for step in STEPS if step.is_filter]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./data_processing_pipeline.sh",
        description="Turn raw video into training clips: 25 fps, 16 kHz, one aligned face, in sync. The raw files are only read.",
        epilog=f"Run the same command again to resume, also after a crash; a changed option redoes what depends on it. {CODES}",
    )
    add_version(parser)
    parser.add_argument("--input_dir", type=Path, required=True, help="folder of raw video, in any container that ffmpeg reads")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help=f"holds a folder for each step, {MANIFEST_NAME} and {REPORT_NAME} (default: the parent folder of --input_dir)",
    )
    group = parser.add_argument_group("clips")
    for option in options_of(STEPS):
        group.add_argument(f"--{option.name}", type=option.type, default=option.default, help=f"{option.help} (default %(default)s)")
    group.add_argument("--skip", default="", metavar="STEPS", help=f"filter steps to skip, separated by commas: {', '.join(FILTERS)}")
    group.add_argument("--checkpoints", type=Path, help="folder of weight files (default: checkpoints/ of the project)")
    group = parser.add_argument_group("workers")
    group.add_argument(
        *("--workers", "--total_num_workers"),
        type=int,
        default=0,
        metavar="N",
        help="processes of the CPU steps (default: one for each core)",
    )
    gpus = group.add_mutually_exclusive_group()
    gpus.add_argument("--gpu_workers", type=int, default=0, metavar="N", help="processes of the GPU steps (default: one for each GPU)")
    gpus.add_argument("--per_gpu_num_workers", type=int, default=0, metavar="N", help="processes for each GPU of this machine")
    group.add_argument("--executor", choices=("local", "ray"), default="local", help="local: processes on this machine; ray: Ray cluster")
    group.add_argument("--ray_address", help='address of the Ray cluster, such as "auto" (default: one is started on this machine)')
    group.add_argument("--timeout", type=float, default=1800.0, help="seconds that a step may spend on one clip (default %(default)s)")
    group.add_argument("--try_again", action="store_true", help="repeat clips that timed out or crashed")
    group = parser.add_argument_group("files")
    group.add_argument("--limit", type=int, help="only the first LIMIT raw files")
    group.add_argument("--delete_broken", action="store_true", help="delete raw files that cannot be decoded (default: kept)")
    kept = group.add_mutually_exclusive_group()
    kept.add_argument("--keep_intermediate", action="store_true", help="keep the files of all steps (default)")
    kept.add_argument("--remove_intermediate", action="store_true", help="delete the files of a step once the next step has used them")
    group.add_argument("--report_only", action="store_true", help="process nothing; print the table and write the report")
    group.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress line")
    accept_published(parser, TEMP_DIR)
    return parser.parse_args(arguments)


def check(arguments: argparse.Namespace) -> None:
    for name, least in {"workers": 0, "gpu_workers": 0, "per_gpu_num_workers": 0, "limit": 1}.items():
        if (count := getattr(arguments, name)) is not None and count < least:
            raise InputError(f"--{name} {count}: give a number from {least}")
    if not arguments.timeout > 0:
        raise InputError(f"--timeout {arguments.timeout:g}: give a number of seconds over 0")
    if arguments.ray_address is not None and arguments.executor != "ray":
        raise InputError("--ray_address is of use with --executor ray alone: add that")


def steps_without(skip: str) -> list[StepDefinition]:
    """The steps but for some, named with commas between. Raises InputError for those that cannot be left out."""
    names = set(filter(None, map(str.strip, skip.split(","))))
    if unknown := sorted(names - set(FILTERS)):
        raise InputError(f"The step {unknown[0]!r} cannot be left out: name some of {', '.join(FILTERS)}.")
    return [step for step in STEPS if step.name not in names]


def executor_maker(arguments: argparse.Namespace) -> Callable[[Sequence[Step]], Executor]:
    """A function from the steps of a run to its workers. Raises InputError where Ray is asked for and missing."""
    gpu_workers = arguments.gpu_workers
    if arguments.per_gpu_num_workers:
        gpu_workers = arguments.per_gpu_num_workers * len(gpu_devices(0))
    if arguments.executor == "local":
        workers = arguments.workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        return lambda steps: LocalExecutor(steps, workers, gpu_devices(gpu_workers), arguments.timeout)
    try:
        from preprocess.ray_runner import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("--executor ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from None
    return lambda steps: RayExecutor(steps, arguments.workers, gpu_workers, arguments.ray_address, arguments.timeout)


def run(arguments: argparse.Namespace) -> None:
    check(arguments)
    output = arguments.output_dir or arguments.input_dir.resolve().parent
    if not arguments.report_only:
        os.environ.update({name: value for name, value in ONE_THREAD.items() if name not in os.environ})  # for the workers
        from latentsync.weights import CHECKPOINTS

        config = PipelineConfig(
            steps=steps_without(arguments.skip),
            input=arguments.input_dir,
            output=output,
            options={option.name: getattr(arguments, option.name) for option in options_of(STEPS)},
            checkpoints=arguments.checkpoints or ROOT / CHECKPOINTS,
            **{name: getattr(arguments, name) for name in ("limit", "delete_broken", "remove_intermediate", "try_again")},
            arguments={name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()},
            show_progress=not arguments.quiet,
        )
        run_pipeline(config, executor_maker(arguments))
    with read_manifest(output) as manifest:
        print(as_text(count_steps(manifest)))
        write_report(manifest, manifest.output / REPORT_NAME)
    logger.info("The report is %s", output / REPORT_NAME)


def main(arguments: list[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    words = "the clips in work were not written, what was done before stays; the same command goes on from there."
    return run_command(lambda: run(parsed), "preprocess", words, quiet=parsed.quiet)


if __name__ == "__main__":
    sys.exit(main())
