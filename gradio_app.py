"""The app in a browser: `python gradio_app.py`; on this machine alone unless it is asked for more."""

import argparse
import logging
import sys
import threading
from pathlib import Path

from latentsync.cli import CODES, add_version, run_command
from latentsync.errors import InputError

logger = logging.getLogger("latentsync")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="gradio_app.py", description="Serve lip sync as a page in the browser and as an API.", epilog=CODES
    )
    add_version(parser)
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1: this machine only; 0.0.0.0: the whole network)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="publish the page on the internet through Gradio's tunnel")
    parser.add_argument("--auth", action="append", default=[], metavar="NAME:PASSWORD", help="require a login; may be given several times")
    parser.add_argument("--max_minutes", type=float, default=5.0, help="longest result, minutes (default %(default)g)")
    parser.add_argument("--max_megabytes", type=int, default=500, help="largest upload, MB (default %(default)s)")
    parser.add_argument("--max_pixels", default="4096x2304", metavar="WxH", help="largest picture by its area (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=1, help="jobs run at once with one set of networks (default 1)")
    parser.add_argument(
        "--keep_minutes",
        type=float,
        default=30.0,
        help="minutes that the jobs of a closed page stay (default %(default)g)",
    )
    parser.add_argument("--config", type=Path, help="YAML of the denoiser (default: of the newest version in checkpoints/)")
    parser.add_argument("--checkpoint", type=Path, help="weights of the denoiser (default: those of --config)")
    parser.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector")
    parser.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    parser.add_argument("--dtype", choices=("auto", "fp16", "bf16", "fp32"), default="auto", help="precision")
    parser.add_argument("--verbose", action="store_true", help="more log messages, and the traceback of an unexpected error")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration of every model")
    return parser.parse_intermixed_args(arguments)  # options and settings in any order


def run(arguments: argparse.Namespace) -> None:
    from latentsync.app.models import ModelCache, ModelChoice, find_models
    from latentsync.app.ui import serving
    from latentsync.pipelines.build import build_pipeline, locate_models, resolve_device
    from latentsync.pipelines.face_cache import temporary_cache
    from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline

    def load(choice: ModelChoice) -> LipsyncPipeline:
        how = {"overrides": arguments.overrides, "device": arguments.device, "dtype": arguments.dtype, "detector": arguments.detector}
        pipeline = build_pipeline(choice.config, choice.unet, **how)
        pipeline.face_cache = cache
        return pipeline

    accounts = [tuple(text.split(":", 1)) for text in arguments.auth]
    if not all(len(pair) == 2 and all(pair) for pair in accounts):
        raise InputError("--auth wants NAME:PASSWORD, such as --auth anna:secret.")
    names = ("host", "port", "share", "max_minutes", "max_megabytes", "concurrency", "keep_minutes")
    sides = arguments.max_pixels.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise InputError("--max_pixels wants a width and a height, such as 1920x1080.")
    settings = {name: getattr(arguments, name) for name in names} | {"max_pixels": int(sides[0]) * int(sides[1])}
    if min(arguments.concurrency, arguments.max_megabytes, arguments.keep_minutes) < 1 or arguments.max_minutes <= 0:
        raise InputError("--concurrency, --max_megabytes and --keep_minutes want 1 or more, --max_minutes more than 0.")
    resolve_device(arguments.device)
    model_cache = ModelCache(find_models(arguments.config, arguments.checkpoint, arguments.overrides), load)
    default = model_cache.default
    locate_models(default.config, default.unet, overrides=arguments.overrides)  # refuses now what is missing
    with temporary_cache() as cache, serving(model_cache, **settings, auth=accounts) as page:
        logger.info("%s is served at %s (Ctrl-C ends it)", default.title, page.local_url)
        if page.share_url:
            logger.info("It is on the internet, too, for everybody who knows the address: %s", page.share_url)
        threading.Event().wait()


def main(arguments: list[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "latentsync", "the app has ended.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
