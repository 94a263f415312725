"""Puts trained networks together as the embedded model."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from latentsync.errors import InputError, OutputError
from latentsync.media.files import STAGING_PREFIX, staged, write_text
from scripts.train_unet import run_training

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger("latentsync")
MOST_BYTES = 60_000_000  # of the whole folder: it is part of the repository
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "embedded"
UNET, VAE, SYNCNET = "unet.safetensors", "vae", "syncnet.safetensors"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.pack",
        description="Write trained networks in half precision into one folder for inference.",
        epilog="Every file is read back and checked. Exit codes: 0 done, 1 failed, 2 unusable input.",
    )
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint of the denoiser")
    parser.add_argument("--unet_config", type=Path, required=True, help="the configuration it was trained with, which names the Whisper")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the autoencoder")
    parser.add_argument("--syncnet", type=Path, required=True, help="checkpoint of the SyncNet")
    parser.add_argument("--syncnet_config", type=Path, required=True, help="the configuration it was trained with")
    parser.add_argument("--output_dir", type=Path, default=DEFAULT_FOLDER, help="folder of the result (default: assets/embedded)")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_args(arguments)


def work(parsed: argparse.Namespace) -> bool:
    """Write everything beside the folder, read it back, and only then move it there."""
    target = parsed.output_dir
    try:
        target.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=STAGING_PREFIX, dir=target.parent) as temporary:
            folder = Path(temporary)
            write_folder(parsed, folder)
            check(folder, target)
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                place = target / path.relative_to(folder)
                place.parent.mkdir(exist_ok=True)
                path.replace(place)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}.") from None
    return True


def write_folder(parsed: argparse.Namespace, folder: Path) -> None:
    """All files of the embedded model."""
    import torch
    from omegaconf import OmegaConf

    from latentsync.config import load_config, load_syncnet_config
    from latentsync.models.vae import WEIGHT_NAMES, load_vae
    from latentsync.training.unet import whisper_weights
    from latentsync.weights import read_state_dict

    config, syncnet, vae = load_config(parsed.unet_config), load_syncnet_config(parsed.syncnet_config), load_vae(parsed.vae).vae
    write_weights(folder / UNET, read_state_dict(parsed.unet)[0], torch.float16)
    write_weights(folder / SYNCNET, read_state_dict(parsed.syncnet)[0], torch.float16)
    write_weights(folder / VAE / WEIGHT_NAMES[0], vae.state_dict(), torch.float16)
    write_text(folder / VAE / "config.json", vae.to_json_string())
    whisper = whisper_weights(config)
    copyfile(whisper, folder / whisper.name)
    sections = {
        "data": selected(config.data, "resolution", "num_frames", "audio_feat_length", "audio_feat_limit", "mask", "single_reference"),
        "model": asdict(config.model),
        "weights": {"unet": UNET, "vae": VAE, "whisper": whisper.name},
        "run": selected(config.run, "inference_steps", "guidance_scale", "sampler", "paste", "match_skin", "noise_scale", "use_reference"),
    }
    write_text(folder / "config.yaml", OmegaConf.to_yaml(sections))
    data = selected(syncnet.data, "resolution", "num_frames", "latent_space", "lower_half")
    write_text(folder / "syncnet.yaml", OmegaConf.to_yaml({"data": data, "model": asdict(syncnet.model)}))


def selected(section: Any, *names: str) -> dict[str, Any]:
    """Some values of a section of a recipe: those that use needs, and training does not change."""
    return {name: getattr(section, name) for name in names}


def write_weights(path: Path, weights: "Mapping[str, Tensor]", dtype: "torch.dtype") -> None:
    """Weights of a type as one safetensors file. Raises OutputError."""
    from safetensors.torch import save

    with staged(path) as temporary:
        try:
            temporary.write_bytes(save({name: value.to(dtype).contiguous() for name, value in weights.items()}))  # save_file hides it
        except OSError as error:
            raise OutputError(f"cannot write {path} ({error.strerror}): free some space and run the same command again.") from None


def check(folder: Path, target: Path) -> None:
    """Build the pipeline and the SyncNet from what was written; refuse a folder that is too large. Raises InputError.

    Args:
        target: what to call the folder.
    """
    from latentsync.models.syncnet import load_syncnet
    from latentsync.pipelines.build import build_pipeline

    build_pipeline(folder / "config.yaml", device="cpu", detector="mtcnn")
    load_syncnet(folder / "syncnet.yaml", folder / SYNCNET)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise InputError(f"{target} would take {size / 1e6:.1f} MB, more than the {MOST_BYTES / 1e6:.0f} it may: train smaller networks.")
    logger.info("%s: %.1f MB", target, size / 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_training(lambda: work(parsed), parsed)


if __name__ == "__main__":
    sys.exit(main())
