"""Give the person in a video other words: `./inference.sh --video_path A --audio_path B --video_out_path C`."""

import argparse
import logging
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.cli import TEMP_DIR, accept_published, run_command
from latentsync.errors import InputError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
    from scripts.jobs import JobSpec

logger = logging.getLogger("latentsync")

DEEPCACHE = "--enable_deepcache"
WITHOUT_EFFECT = {DEEPCACHE: "features are not cached between denoising steps yet, each step is computed in full", **TEMP_DIR}
ASSETS = Path(__file__).resolve().parents[1] / "assets"
DEMO = (ASSETS / "demo1_video.mp4", ASSETS / "demo1_audio.wav", Path("video_out.mp4"))  # what is made where no job is named


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="inference.sh",
        description="Make the mouth in a video say the words of a recording. Without a video and a sound the demo is made: video_out.mp4.",
        epilog="Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted. "
        "Inputs are never changed; outputs appear whole or not at all.",
    )
    add_job_arguments(parser)
    add_choice_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument(
        "--report", action="store_true", help="write OUTPUT.report.json: spans, frames left alone and why, seconds of each stage"
    )
    parser.add_argument("--print_config", action="store_true", help="print the configuration with all overrides and stop")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")
    parser.add_argument("--verbose", action="store_true", help="tell more, and show where an unexpected failure happened")
    accept_published(parser, WITHOUT_EFFECT, flags=[DEEPCACHE])
    return parser.parse_args(arguments)


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """What to work on."""
    group = parser.add_argument_group("what")
    group.add_argument("--video_path", type=Path, help="the video of somebody talking")
    group.add_argument("--audio_path", type=Path, help="the other words: any sound file, or a video with sound")
    group.add_argument("--video_out_path", type=Path, help="the result: .mp4, .mov, .mkv or .webm")
    group.add_argument("--overwrite", action="store_true", help="replace an output file that exists")
    group.add_argument(
        "--jobs",
        type=Path,
        metavar="FILE",
        help="many jobs with one loading of the models: a .csv, .tsv, .txt or .yaml file with video_path, audio_path, "
        "video_out_path and, where wanted, any option below by its name; paths are relative to the file; outputs that exist are skipped; "
        "one failure does not stop the others",
    )


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """How to do it; names and defaults are those of `LipsyncOptions`."""
    from latentsync.media.video_writer import CODECS
    from latentsync.pipelines.options import LENGTHS, LipsyncOptions

    group = parser.add_argument_group("how")
    group.add_argument(
        "--inference_steps", type=int, help="denoising steps (default: the model's, 20 if published); fewer are faster and coarser"
    )
    group.add_argument(
        "--guidance_scale",
        type=float,
        help="how strongly the sound steers the mouth (default: the model's, 1.5 if published); 1 switches this off and halves the time",
    )
    group.add_argument("--seed", type=int, help="the same seed gives the same video (default %(default)s); -1 draws a fresh one")
    group.add_argument(
        "--face",
        metavar="WHO",
        help="whose mouth: largest (default), left, right, a number counted from the left from 0, or x,y@seconds: "
        "whoever is at that pixel then (several, one a shot, separated by ;)",
    )
    group.add_argument(
        "--audio_track",
        metavar="WHICH",
        help="audio track of a sound file that has several: a number counted from 0, or a language such as eng "
        "(default: the one that the file marks as default, else the first)",
    )
    group.add_argument(
        "--length",
        choices=LENGTHS,
        help="what decides how long the result is (default audio: a longer sound plays the video back and forth)",
    )
    group.add_argument(
        "--keep_fps", action="store_true", help="keep the video's frame rate (default: 25 frames a second, as the networks were trained)"
    )
    group.add_argument(
        "--batch_clips",
        type=int,
        help="clips of 16 frames in one pass of the networks (default %(default)s); more is faster on a large GPU",
    )
    group.add_argument("--codec", choices=tuple(CODECS), help="video codec (default h264, in .webm vp9)")
    group.add_argument("--crf", type=int, help="quality of the one encode, lower is better (default: visually lossless for the codec)")
    group.add_argument("--preset", help="speed preset of the encoder (default: a fast one)")
    group.add_argument("--lossless", action="store_true", help="encode without any loss: large files")
    parser.set_defaults(**asdict(LipsyncOptions()))


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do it with."""
    group = parser.add_argument_group("with what")
    group.add_argument(
        "--unet_config_path",
        type=Path,
        help="YAML of the denoiser (default: that of the newest version found in checkpoints/, or of the version of --inference_ckpt_path; "
        "the newest is assumed, and said, where a file does not tell its version)",
    )
    group.add_argument("--inference_ckpt_path", type=Path, help="the denoiser's weights; see docs/inference.md for what files may hold")
    group.add_argument("--vae_path", type=Path, help="folder or file of the autoencoder (default checkpoints/sd-vae-ft-mse)")
    group.add_argument(
        "--whisper_path", type=Path, help="the audio encoder: a file, or a folder of Hugging Face (default checkpoints/whisper/tiny.pt)"
    )
    group.add_argument(
        "--detector",
        choices=("auto", "face-alignment", "mtcnn"),
        default="auto",
        help="face detector (default: face-alignment if its weights are there, else mtcnn)",
    )
    group.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    group.add_argument(
        "--dtype", choices=("auto", "fp16", "bf16", "fp32"), default="auto", help="precision (default: what the device does well)"
    )
    group.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the configuration, such as data.num_frames=8"
    )


def check_paths(arguments: argparse.Namespace) -> None:
    """Refuse half a job before anything is loaded, which takes seconds. Raises InputError."""
    named = [path is not None for path in (arguments.video_path, arguments.audio_path, arguments.video_out_path)]
    if arguments.jobs is not None and any(named):
        raise InputError("--jobs names videos, sounds and outputs itself: leave out --video_path, --audio_path and --video_out_path.")
    if any(named) and not all(named):
        raise InputError(
            "Give --video_path, --audio_path and --video_out_path, or --jobs with a list of them; the demo needs none of the three."
        )


def jobs_of(arguments: argparse.Namespace) -> "list[JobSpec]":
    """The jobs of a command line, checked before anything is loaded."""
    from latentsync.pipelines.options import LipsyncOptions
    from scripts.jobs import JobSpec, read_jobs

    options = LipsyncOptions(**{field.name: getattr(arguments, field.name) for field in fields(LipsyncOptions)})
    paths = (arguments.video_path, arguments.audio_path, arguments.video_out_path)
    if arguments.jobs is not None:
        return read_jobs(arguments.jobs, options)
    if not any(paths):
        logger.info("No video and no sound were named: making the demo, %s with the words of %s.", DEMO[0].name, DEMO[1].name)
        paths = DEMO
    return [JobSpec(*paths, options)]


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says; the exit code."""
    check_paths(arguments)
    from latentsync.config import dump_config
    from latentsync.pipelines.build import build_pipeline, read_config
    from scripts.jobs import run_jobs

    models = (arguments.unet_config_path, arguments.inference_ckpt_path, arguments.vae_path, arguments.whisper_path)
    if arguments.print_config:
        config, _ = read_config(arguments.unet_config_path, arguments.inference_ckpt_path, arguments.overrides)
        print(dump_config(config), end="")
        return 0
    jobs = jobs_of(arguments)

    def build() -> "LipsyncPipeline":
        pipeline = build_pipeline(
            *models,
            overrides=arguments.overrides,
            device=arguments.device,
            dtype=arguments.dtype,
            detector=arguments.detector,
        )
        pipeline.set_progress_bar_config(disable=arguments.quiet or None, leave=True, unit="frame")
        return pipeline

    return run_jobs(jobs, build, write_report=arguments.report, as_batch=arguments.jobs is not None)


def main(arguments: list[str] | None = None) -> int:
    """Entry point: settings of the process, and every failure in one sentence."""
    parsed = parse_arguments(arguments)
    again = "the output in work was not written."
    return run_command(lambda: run(parsed), "latentsync", again, quiet=parsed.quiet, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
