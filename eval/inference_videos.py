"""Generate a list of videos with one loaded pipeline: `python -m eval.inference_videos --pairs FILE --output_dir OUT`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.cli import CODES, run_command
from latentsync.errors import ConfigError, InputError, WeightsError, reason_of
from latentsync.media.files import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, check_readable, read_table, walk_media, written_path

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.cases import GeneratedVideos, Pair

logger = logging.getLogger("eval")

COLUMNS = ("video_path", "audio_path")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.inference_videos",
        description="Generate many videos with one loaded pipeline.",
        epilog="Run the same command again to resume: finished videos are kept, each with a .json of its inputs and options. " + CODES,
    )
    group = parser.add_argument_group("inputs and output")
    group.add_argument(
        "--pairs", type=Path, help=".csv file with columns video_path, audio_path and optionally name; paths are relative to the file"
    )
    group.add_argument("--videos", type=Path, help="instead of --pairs: folder of videos")
    group.add_argument("--audios", type=Path, help="with --videos: folder of recordings; files of the same name form a pair")
    group.add_argument("--output_dir", type=Path, required=True, help="folder of the results, NAME.mp4")
    add_options(group, length="video", face=None, batch_clips=None)
    add_model_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_intermixed_args(arguments)


def add_options(group: Any, **defaults: Any) -> None:
    """Arguments for these of `LipsyncOptions`, with other defaults where they are not None."""
    from latentsync.pipelines.options import OPTION_TYPES, LipsyncOptions

    for option in fields(LipsyncOptions):
        if option.name in defaults:
            default, text = defaults[option.name] or option.default, option.metadata["help"]
            text = text if default is None else f"{text} (default: {default})"
            choices, metavar = option.metadata["choices"], option.metadata["metavar"]
            kind = OPTION_TYPES[option.name]
            group.add_argument(f"--{option.name}", type=kind, default=default, choices=choices, metavar=metavar, help=text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("--unet_config_path", type=Path, help="YAML of the denoiser (default: as in inference)")
    group.add_argument("--inference_ckpt_path", type=Path, help="weights of the denoiser")
    group.add_argument("--vae_path", type=Path, help="folder or file of the autoencoder")
    group.add_argument("--whisper_path", type=Path, help="weights of the audio encoder")
    add_options(group, quality=None, inference_steps=None, guidance_scale=None, sampler=None, cache_interval=None, seed=None)
    add_options(group, strength=None, silence=None)
    group.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    group.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    group.add_argument("--dtype", choices=("auto", "fp16", "bf16", "fp32"), default="auto", help="precision of the model")
    group.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the denoiser's configuration")


def read_pairs(path: Path) -> "list[Pair]":
    """The rows of a .csv file. Raises InputError: it cannot be read, a column is missing, two results would have one name."""
    from eval.cases import Pair

    rows = read_table(path)
    if not rows:
        raise InputError(f"{path} names no pair: give at least one row with {' and '.join(COLUMNS)}")
    pairs = []
    for number, row in enumerate(rows, start=1):
        missing = [name for name in COLUMNS if not row.get(name)]
        if missing:
            raise InputError(f"{path}, row {number}: {' and '.join(missing)} missing")
        video, audio = (written_path(path.parent, row[name]) for name in COLUMNS)
        pairs.append(Pair(row.get("name", "").strip() or f"{video.stem}__{audio.stem}", video, audio, "cross"))
    names = [pair.name for pair in pairs]
    bad = next((name for name in names if names.count(name) > 1 or Path(name).name != name), None)
    if bad is not None:
        raise InputError(f"{path}: the name {bad!r} is there twice or is no plain file name: give each row a name of its own")
    return pairs


def match_pairs(videos: Path, audios: Path) -> "list[Pair]":
    """Videos and sounds of one file name. Raises InputError where no two fit, or where one name is there twice."""
    from eval.cases import Pair

    def by_stem(folder: Path, extensions: frozenset[str]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in walk_media(folder, extensions):
            if found.setdefault(path.stem, path) != path:
                raise InputError(f"{found[path.stem]} and {path} have one name: rename one of them, or list them with --pairs")
        return found

    pictures, sounds = by_stem(videos, VIDEO_EXTENSIONS), by_stem(audios, AUDIO_EXTENSIONS | VIDEO_EXTENSIONS)
    pairs = [Pair(name, video, sounds[name], "cross") for name, video in pictures.items() if name in sounds]
    if not pairs:
        raise InputError(f"No video in {videos} has a sound of its name in {audios}: name them alike, or list them with --pairs")
    alone = sorted(pictures.keys() ^ sounds.keys())
    if alone:
        logger.warning("%d files have no partner of their name and are left out, such as %s.", len(alone), alone[0])
    return pairs


def generate_all(pairs: "Sequence[Pair]", videos: "GeneratedVideos") -> dict[str, str]:
    """Generate or find all; why some could not be generated. A failure does not stop the others, but for one that all would meet."""
    failed = {}
    for number, pair in enumerate(pairs, start=1):
        logger.info("%s (%d of %d)", pair.name, number, len(pairs))
        try:
            check_readable(pair.source)
            check_readable(pair.audio)
            videos.generate(pair.name, pair.source, pair.audio)
        except (ConfigError, WeightsError):
            raise  # of every video alike
        except Exception as error:
            failed[pair.name] = reason_of(error)
            logger.warning("%s was not generated: %s", pair.name, failed[pair.name])
            logger.debug("Where it happened:", exc_info=error)
    return failed


def run(parsed: argparse.Namespace) -> int:
    from eval.cases import find_model
    from latentsync.pipelines.options import LipsyncOptions

    if (parsed.pairs is None) == (parsed.videos is None) or (parsed.videos is None) != (parsed.audios is None):
        raise InputError("Give --pairs with a list, or both --videos and --audios with folders.")
    pairs = read_pairs(parsed.pairs) if parsed.pairs else match_pairs(parsed.videos, parsed.audios)
    options = LipsyncOptions(**{option.name: getattr(parsed, option.name) for option in fields(LipsyncOptions) if option.name in parsed})
    named = (parsed.unet_config_path, parsed.inference_ckpt_path, parsed.vae_path, parsed.whisper_path)
    model = find_model(named, parsed.overrides, parsed.detector, parsed.device, parsed.dtype, options)
    failed = generate_all(pairs, model.videos(parsed.output_dir))
    print(f"{len(pairs) - len(failed)} of {len(pairs)} videos are in {parsed.output_dir}")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse_arguments(arguments)
    return run_command(lambda: run(parsed), "eval", "the same command goes on with the video that was interrupted.", verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
