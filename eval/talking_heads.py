"""Measure a model on rendered heads of unseen people, with controls: `eval/eval_talking_heads.sh --clips DIR --output_dir OUT ...`."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.command import run_command
from latentsync.errors import ConfigError, InputError, WeightsError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    from eval.heads.measures import HeadsMeter, PairMeasures, SilenceMeasures
    from eval.heads.pairs import Pair
    from eval.runs.generated_videos import GeneratedVideos

logger = logging.getLogger("eval")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="eval_talking_heads.sh",
        description="Give rendered heads the words of their twins and measure the result beside the source and the true render. "
        "Writes results.json, results.md and sheet.png; prints the table.",
        epilog="The same command goes on where it stopped: videos that are made are kept in OUT/generated. "
        "Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    add_measure_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser.parse_intermixed_args(arguments)


def add_measure_arguments(parser: argparse.ArgumentParser) -> None:
    """On what, with what, and where to."""
    group = parser.add_argument_group("what is measured, and by what")
    group.add_argument("--clips", type=Path, required=True, help="folder of rendered pairs of unseen people (--pairs --split test)")
    group.add_argument("--output_dir", type=Path, required=True, help="where results and generated videos go")
    group.add_argument("--limit", type=int, help="the first N pairs only")
    group.add_argument("--silence", type=int, default=6, metavar="N", help="clips that also hear silence (default %(default)s)")
    group.add_argument("--syncnet_config", type=Path, required=True, help="YAML of the SyncNet that the denoiser was trained with")
    group.add_argument("--syncnet", type=Path, required=True, help="its weights")
    group.add_argument("--judge_config", type=Path, help="YAML of another SyncNet, not used in training; its rows stay empty without")
    group.add_argument("--judge", type=Path, help="its weights")
    group.add_argument("--reader", type=Path, required=True, help="the mouth reader's weights")
    group.add_argument(
        "--vgg16", type=Path, help="torchvision's VGG-16 for LPIPS (default: that in checkpoints/; without one the mouth reader stands in)"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model under test, as in inference."""
    group = parser.add_argument_group("the model")
    group.add_argument("--unet_config_path", type=Path, help="YAML of the denoiser (default: as inference.sh)")
    group.add_argument("--inference_ckpt_path", type=Path, help="the denoiser's weights")
    group.add_argument("--vae_path", type=Path, help="folder of the autoencoder")
    group.add_argument("--whisper_path", type=Path, help="the audio encoder's weights")
    group.add_argument("--inference_steps", type=int, help="denoising steps (default: the model's)")
    group.add_argument("--guidance_scale", type=float, help="how strongly the sound steers the mouth (default: the model's)")
    group.add_argument("--seed", type=int, default=1247, help="the same seed gives the same videos (default %(default)s)")
    group.add_argument("--detector", choices=("auto", "face-alignment", "mtcnn"), default="auto", help="face detector, as in inference")
    group.add_argument("--device", default="auto", help="auto (default), cuda, cuda:1, mps or cpu")
    group.add_argument("--dtype", choices=("auto", "fp16", "bf16", "fp32"), default="auto", help="precision of the model")
    group.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the denoiser's configuration")


def open_meter(parsed: argparse.Namespace, resolution: int, vgg16: Path | None) -> "HeadsMeter":
    """The networks that measure. Raises InputError, ConfigError, WeightsError."""
    from eval.heads.measures import HeadsMeter
    from eval.measures.mouths import make_appearance
    from eval.measures.sync_offset import load_sync_meter
    from latentsync.models.mouth_reader import load_mouth_reader
    from latentsync.pipelines.build import resolve_device

    device = resolve_device(parsed.device)
    syncnet = load_sync_meter(parsed.syncnet_config, parsed.syncnet, device)
    judge = None if parsed.judge is None else load_sync_meter(parsed.judge_config, parsed.judge, device)
    reader = load_mouth_reader(parsed.reader).to(device).eval()
    return HeadsMeter(resolution, syncnet, judge, reader, make_appearance(reader, vgg16, device), device)


def measure_all(
    pairs: "Sequence[Pair]", silent: int, videos: "GeneratedVideos", meter: "HeadsMeter"
) -> "tuple[list[PairMeasures], list[SilenceMeasures], dict[str, str]]":
    """Pairs, silence, and which clips could not be measured and why. Raises InputError where none could."""
    from eval.heads.pairs import read_truth

    measured, silence, failed = [], [], {}
    for number, pair in enumerate(pairs):
        logger.info("%s (%d of %d)", pair.name, number + 1, len(pairs))
        try:
            made = videos.say(pair.name, pair.video, pair.twin)
            measured.append(meter.measure(pair, number, made, videos.generated_share(pair.name)))
            if len(silence) < silent:
                made = videos.be_silent(f"{pair.name}_silence", pair.video, len(read_truth(pair.video)))
                silence.append(meter.measure_silence(pair, made))
        except (ConfigError, WeightsError):
            raise  # of every clip alike
        except InputError as error:
            logger.warning("%s is left out: %s", pair.name, error)
            failed[pair.name] = str(error)
    if not measured:
        raise InputError(f"Not one of {len(pairs)} clips could be measured, the last because: {failed[pairs[-1].name]}")
    return measured, silence, failed


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from eval.heads.pairs import find_pairs, read_truth
    from eval.heads.results import Results
    from eval.runs.generated_videos import checksums
    from eval.runs.model_under_test import find_model
    from latentsync.pipelines.options import LipsyncOptions

    if (parsed.judge is None) != (parsed.judge_config is None):
        raise InputError("A judge is a configuration and its weights: give both --judge_config and --judge, or neither.")
    pairs = find_pairs(parsed.clips, parsed.limit)
    splits = sorted({read_truth(pair.video).split for pair in pairs})
    if splits != ["test"]:
        logger.warning("These clips are of %s: people that the model may have been trained on.", ", ".join(splits))
    named = (parsed.unet_config_path, parsed.inference_ckpt_path, parsed.vae_path, parsed.whisper_path)
    options = LipsyncOptions(parsed.inference_steps, parsed.guidance_scale, parsed.seed, length="video")
    model = find_model(named, parsed.overrides, parsed.detector, parsed.device, parsed.dtype, options)
    vgg16 = parsed.vgg16 or default_vgg16()
    judges = {"syncnet": parsed.syncnet, "judge": parsed.judge, "reader": parsed.reader, "vgg16": vgg16}
    weights = {**model.weights, **checksums({name: path for name, path in judges.items() if path is not None})}
    meter, videos = open_meter(parsed, model.config.data.resolution, vgg16), model.videos(parsed.output_dir / "generated")
    measured, silence, failed = measure_all(pairs, parsed.silence, videos, meter)
    settings = {**model.settings(), "splits": splits, "syncnet_config": str(parsed.syncnet_config), "silence": len(silence)}
    table = Results(settings, weights, measured, silence, failed, meter.appearance.name).write(parsed.output_dir)
    show({pair.name: pair for pair in pairs}, measured, videos, meter, parsed.output_dir / "sheet.png")
    print(table, end="")


def default_vgg16() -> Path | None:
    """Where VGG-16 lies, if it does."""
    from latentsync.pipelines.build import ROOT
    from latentsync.weights import CHECKPOINTS, find_weights

    return find_weights("vgg16", ROOT / CHECKPOINTS)


def show(
    pairs: "Mapping[str, Pair]", measured: "Sequence[PairMeasures]", videos: "GeneratedVideos", meter: "HeadsMeter", sheet: Path
) -> None:
    """Write the contact sheet. Raises OutputError."""
    from eval.heads.sheet import block_title, chosen_clips, clip_block, write_sheet

    blocks = []
    for index, why in chosen_clips(measured).items():
        pair = pairs[measured[index].name]
        faces = meter.faces(pair, videos.say(pair.name, pair.video, pair.twin))
        blocks.append(clip_block(faces, block_title(measured[index], why)))
    write_sheet(sheet, blocks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: settings of the process, and every failure in one sentence."""
    parsed = parse_arguments(arguments)
    again = "the same command goes on with the clip that was in work."
    return run_command(lambda: run(parsed), "eval", again, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
