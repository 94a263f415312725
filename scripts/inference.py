"""Give the person in a video other words: `./inference.sh --video_path A --audio_path B --video_out_path C`."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.cli import TEMP_DIR, accept_published, add_version, quick_imports, run_command
from latentsync.errors import InputError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
    from scripts.jobs import DubbingJob, JobSpec, Outcomes

logger = logging.getLogger("latentsync")

PUBLISHED_CACHE_INTERVAL = 3  # what --enable_deepcache meant
MODEL_PATHS = ("unet_config_path", "inference_ckpt_path", "vae_path", "whisper_path")
MODEL_SETTINGS = ("overrides", "device", "dtype", "detector", "tiny_vae", "cache_dir", "compile")  # arguments of `build_pipeline`
ASSETS = Path(__file__).resolve().parents[1] / "assets"
DEMO = (ASSETS / "demo1_video.mp4", ASSETS / "demo1_audio.wav", Path("video_out.mp4"))  # what is made where no job is named


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    from latentsync.pipelines.options import add_option_arguments

    parser = argparse.ArgumentParser(
        prog="inference.sh",
        description="Change the mouth in a video to match a recording. Without inputs it runs the demo and writes video_out.mp4.",
        epilog="Exit codes: 0 done, 1 failed, 2 unusable input, 130 interrupted. "
        "Inputs are never changed; outputs are written whole or not at all.",
    )
    add_version(parser)
    add_job_arguments(parser)
    add_option_arguments(parser.add_argument_group("options of a job"))
    add_model_arguments(parser)
    parser.add_argument(
        "--report", action="store_true", help="write OUTPUT.report.json: synced spans, skipped frames with reasons, seconds of each stage"
    )
    parser.add_argument("--print_config", action="store_true", help="print the configuration with all overrides and stop")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")
    parser.add_argument("--verbose", action="store_true", help="more log messages, and the traceback of an unexpected error")
    parser.add_argument(
        "--enable_deepcache",
        dest="cache_interval",
        action="store_const",
        const=PUBLISHED_CACHE_INTERVAL,
        help=f"published spelling of --cache_interval {PUBLISHED_CACHE_INTERVAL}",
    )
    accept_published(parser, TEMP_DIR)
    return parser.parse_intermixed_args(arguments)  # options and settings in any order


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """What to work on."""
    group = parser.add_argument_group("inputs and output")
    group.add_argument("--video_path", type=Path, help="video of a person talking, a photo, or a folder of numbered frames (25 a second)")
    group.add_argument("--audio_path", type=Path, help="the recording: any audio file, or a video with sound")
    group.add_argument("--video_out_path", type=Path, help="output: .mp4, .mov, .mkv or .webm")
    group.add_argument(
        "--script",
        type=Path,
        metavar="FILE",
        help="a dubbing script: a .yaml file with a video and lines, each with start, audio and face (docs/dubbing.md); all frames without "
        "a line stay; one line alone: --start and --end",
    )
    group.add_argument(
        "--jobs",
        type=Path,
        metavar="FILE",
        help="many jobs with models loaded once: a .csv, .tsv, .txt or .yaml file with video_path, audio_path, video_out_path and "
        "any option of a job; paths are relative to the file; existing outputs are skipped; a failed job does not stop the others; "
        "how each ended is written beside it, in a file whose name ends in .outcomes.csv",
    )
    group = parser.add_argument_group("where jobs run")
    group.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="local: here, one after the other; ray: on a Ray cluster, one job by segments",
    )
    group.add_argument("--ray_address", help='address of the Ray cluster, such as "auto" (default: one is started on this machine)')
    group.add_argument(
        "--gpus_per_worker",
        type=float,
        default=1.0,
        metavar="N",
        help="GPUs of a worker, such as 0.5 for two workers on each; 0: processors alone (default: 1 where the cluster has GPUs)",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do it with."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--unet_config_path",
        type=Path,
        help="YAML of the denoiser (default: of the version of --inference_ckpt_path, else of the newest version in checkpoints/)",
    )
    group.add_argument("--inference_ckpt_path", type=Path, help="weights of the denoiser; formats: docs/options.md")
    group.add_argument("--vae_path", type=Path, help="folder or file of the autoencoder (default: checkpoints/sd-vae-ft-mse)")
    group.add_argument(
        "--whisper_path", type=Path, help="audio encoder: openai-whisper file or Hugging Face folder (default: checkpoints/whisper/tiny.pt)"
    )
    group.add_argument(
        "--detector",
        choices=("auto", "face-alignment", "mtcnn"),
        default="auto",
        help="face detector (default: face-alignment if its weights exist, else mtcnn)",
    )
    group.add_argument(
        "--tiny_vae", type=Path, help="faster autoencoder with less detail: folder of an AutoencoderTiny, such as madebyollin/taesd"
    )
    group.add_argument(
        "--cache_dir",
        type=Path,
        metavar="FOLDER",
        help="keep faces and latents of each video there (at most 10 GB), for other recordings with the same video",
    )
    group.add_argument("--compile", action="store_true", help="torch.compile: starts minutes later, then runs faster; for long jobs")
    group.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    group.add_argument(
        "--dtype", choices=("auto", "fp16", "bf16", "fp32"), default="auto", help="precision (default: the fastest that suits the device)"
    )
    group.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration, such as data.num_frames=8")


def read_command(arguments: argparse.Namespace) -> "list[JobSpec | DubbingJob]":
    """The jobs of a command line. Raises InputError for half a job, before anything is loaded, which takes seconds."""
    paths = (arguments.video_path, arguments.audio_path, arguments.video_out_path)
    if not any((*paths, arguments.script, arguments.jobs)):
        logger.info("No video and no sound were named: making the demo, %s with the words of %s.", DEMO[0].name, DEMO[1].name)
        paths = DEMO
    from latentsync.pipelines.options import LipsyncOptions
    from latentsync.pipelines.script import read_script
    from scripts.jobs import DubbingJob, JobSpec, read_jobs

    if arguments.ray_address is not None and arguments.executor != "ray":
        raise InputError("--ray_address is of use with --executor ray alone: add that.")
    if not (0 <= arguments.gpus_per_worker <= 1 or arguments.gpus_per_worker.is_integer()):
        raise InputError(f"--gpus_per_worker {arguments.gpus_per_worker:g}: give a share from 0 to 1, or a whole number.")
    options = LipsyncOptions(**{field.name: getattr(arguments, field.name) for field in fields(LipsyncOptions)})
    if arguments.script is not None:
        script = read_script(arguments.script, options)
        output = arguments.video_out_path or script.output
        if arguments.video_path or arguments.audio_path or arguments.jobs or output is None:
            raise InputError("--script names the video and the sounds: give it with --video_out_path, or output in the script, alone.")
        return [DubbingJob(script, output)]
    if arguments.jobs is not None:
        if any(paths):
            raise InputError("--jobs names videos, sounds and outputs itself: leave out --video_path, --audio_path and --video_out_path.")
        return read_jobs(arguments.jobs, options)
    if any(paths) and not all(paths):
        raise InputError(
            "Give --video_path, --audio_path and --video_out_path, or --jobs with a list of them; the demo needs none of the three."
        )
    return [JobSpec(*paths, options)]


def build_models(arguments: argparse.Namespace) -> "LipsyncPipeline":
    """The pipeline that the command line asks for."""
    from latentsync.pipelines.build import build_pipeline

    pipeline = build_pipeline(
        *(getattr(arguments, name) for name in MODEL_PATHS),
        **{name: getattr(arguments, name) for name in MODEL_SETTINGS},
    )
    pipeline.set_progress_bar_config(disable=arguments.quiet or None, leave=True, unit="frame")
    return pipeline


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says; the exit code."""
    with quick_imports():
        jobs = [] if arguments.print_config else read_command(arguments)
        from latentsync.config import dump_config
        from latentsync.pipelines.build import read_config
        from scripts.jobs import run_batch, run_single, run_spread, work_here

    if arguments.print_config:
        config, _ = read_config(arguments.unet_config_path, arguments.inference_ckpt_path, arguments.overrides)
        print(dump_config(config), end="")
        return 0
    build = partial(build_models, arguments)
    if arguments.jobs is None and arguments.executor == "local":
        return run_single(jobs[0], build, arguments.report)
    work = ray_work(arguments) if arguments.executor == "ray" else partial(work_here, build=build, write_report=arguments.report)
    return run_batch(jobs, arguments.jobs, work) if arguments.jobs else run_spread(jobs[0], work)


def ray_work(arguments: argparse.Namespace) -> "Callable[[Sequence[JobSpec]], Outcomes]":
    """What `run_batch` does jobs with on a Ray cluster. Raises InputError where Ray is missing, or what is wrong with the models."""
    try:
        from scripts.ray_jobs import work_on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("--executor ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from None
    from latentsync.pipelines.build import locate_models

    locate_models(*(getattr(arguments, name) for name in MODEL_PATHS), overrides=arguments.overrides)
    gpus = 0.0 if arguments.device == "cpu" else arguments.gpus_per_worker
    if not gpus:
        arguments.device = "cpu"  # workers that ask for no GPU may see one
    return partial(
        work_on_ray,
        build=partial(build_models, arguments),
        write_report=arguments.report,
        address=arguments.ray_address,
        gpus_per_worker=gpus,
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point: settings of the process, and every failure in one sentence."""
    parsed = parse_arguments(arguments)
    again = "the output in work was not written."
    return run_command(lambda: run(parsed), "latentsync", again, quiet=parsed.quiet, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
