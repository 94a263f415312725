"""Put trained networks together as the embedded model: `python -m scripts.pack_embedded --help`; the last step of train_embedded.sh."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentsync.errors import InputError, OutputError
from scripts.training import run_command

logger = logging.getLogger("latentsync")

MOST_BYTES = 30_000_000  # of the whole folder: it is part of the repository
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "embedded"
UNET, VAE, WHISPER, SYNCNET = "unet.safetensors", "vae", "audio_encoder.pt", "syncnet.safetensors"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pack_embedded",
        description="Write trained networks in half precision into one folder that inference finds by itself.",
        epilog="Every file is read back and checked. Exit codes: 0 done, 1 failed, 2 an input cannot be used.",
    )
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint of the denoiser")
    parser.add_argument("--unet_config", type=Path, required=True, help="the recipe that it was trained with")
    parser.add_argument("--vae", type=Path, required=True, help="folder of the autoencoder")
    parser.add_argument("--audio_encoder", type=Path, required=True, help="checkpoint of the audio encoder")
    parser.add_argument("--syncnet", type=Path, required=True, help="checkpoint of the SyncNet")
    parser.add_argument("--syncnet_config", type=Path, required=True, help="the recipe that it was trained with")
    parser.add_argument("--output_dir", type=Path, default=DEFAULT_FOLDER, help="default %(default)s")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser.parse_args(arguments)


def settings(config: Any) -> dict[str, Any]:
    """What inference needs of a denoiser's recipe, with the weights beside it."""
    data, run = config.data, config.run
    return {
        "data": {
            "resolution": data.resolution,
            "num_frames": data.num_frames,
            "audio_feat_length": list(data.audio_feat_length),
            "mask": data.mask,
        },
        "model": {key: list(value) if isinstance(value, list) else value for key, value in vars(config.model).items()},
        "weights": {"unet": UNET, "vae": VAE, "whisper": WHISPER},
        "run": {"inference_steps": run.inference_steps, "guidance_scale": run.guidance_scale},
    }


def work(parsed: argparse.Namespace) -> bool:
    """Write the folder and read everything back."""
    from diffusers import AutoencoderKL
    from omegaconf import OmegaConf

    from latentsync.config import dump_config, load_config, load_syncnet_config
    from latentsync.media.files import write_text
    from latentsync.models.unet_weights import load_unet
    from latentsync.models.vae import load_vae
    from latentsync.weights import read_state_dict
    from latentsync.whisper.loading import load_whisper_encoder

    folder = parsed.output_dir
    config, syncnet = load_config(parsed.unet_config), load_syncnet_config(parsed.syncnet_config)
    load_unet(config.model, parsed.unet)
    load_whisper_encoder(parsed.audio_encoder)
    vae: AutoencoderKL = load_vae(parsed.vae).vae
    write_halves(folder / UNET, read_state_dict(parsed.unet)[0])
    write_halves(folder / SYNCNET, read_state_dict(parsed.syncnet)[0])
    write_whisper(folder / WHISPER, parsed.audio_encoder)
    try:
        vae.half().save_pretrained(folder / VAE)
    except OSError as error:
        raise OutputError(f"cannot write {folder / VAE}: {error.strerror}") from None
    write_text(folder / "syncnet.yaml", dump_config(OmegaConf.create({"data": sizes_of(syncnet), "model": vars(syncnet.model)})))
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings(config))))
    check(folder)
    return True


def write_halves(path: Path, weights: Mapping[str, Any]) -> None:
    """Weights in half precision as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    from latentsync.media.files import staged

    with staged(path) as temporary:
        save_file({name: value.half().contiguous() for name, value in weights.items()}, temporary)
