"""Whether a weight file is the one it is named for: its checksum, and whether it fits its network name by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch

from latentsync.config import VideoMAEConfig, load_config
from latentsync.errors import LatentSyncError, WeightsError
from latentsync.losses.lpips import load_lpips
from latentsync.models.syncnet import load_syncnet
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import UNET_PARTS, refuse_misfits, with_current_names, with_own_tables
from latentsync.models.vae import load_vae
from latentsync.pipelines.build import CONFIGS, ROOT
from latentsync.third_party.hyperiqa import load_hyperiqa
from latentsync.third_party.s3fd import load_s3fd
from latentsync.third_party.syncnet_v2 import load_syncnet_v2
from latentsync.third_party.videomae import load_videomae
from latentsync.weights import VERSIONS, WEIGHTS, check_sha256, load_strict, read_checkpoint, read_state_dict
from latentsync.whisper.audio2feature import load_whisper_encoder

SYNCNET_CONFIG = ROOT / "configs" / "syncnet" / "syncnet_16_pixel_attn.yaml"  # of the published file


def try_unet(version: str, path: Path) -> None:
    """Whether a file fits the denoiser of a version, name by name; its weights stay mapped. Raises WeightsError."""
    config = load_config(ROOT / "configs" / "unet" / CONFIGS[version]).model
    state_dict = with_own_tables(with_current_names(read_state_dict(path, UNET_PARTS)[0]))
    refuse_misfits(config, state_dict, path)
    with torch.device("meta"):
        network = UNet3DConditionModel(config)
    load_strict(network, state_dict, path, f"it is not the denoiser of version {version}", assign=True)


LOADERS: Mapping[str, Callable[[Path], object]] = {
    **{f"unet-{version}": lambda path, version=version: try_unet(version, path) for version in VERSIONS},
    "whisper-tiny": load_whisper_encoder,
    "whisper-small": load_whisper_encoder,
    "vae-config": lambda path: path.read_bytes(),
    "vae": lambda path: load_vae(path.parent),
    "syncnet": lambda path: load_syncnet(SYNCNET_CONFIG, path),
    "vgg16": load_lpips,
    "videomae": lambda path: load_videomae(VideoMAEConfig(), path),
    "sfd_face": load_s3fd,
    "syncnet_v2": load_syncnet_v2,
    "hyperiqa": load_hyperiqa,
}  # the files of other libraries are only read
TORCHSCRIPT = {"i3d", "inception"}


def try_archive(path: Path) -> None:
    """Whether a TorchScript program is whole; nothing in it is executed. Raises WeightsError."""
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    except (BadZipFile, EOFError):
        raise WeightsError(f"{path} is no TorchScript program, or is cut short: delete it and download it again.") from None
    if damaged is not None:
        raise WeightsError(f"{path} is damaged: delete it and download it again.")


def check_file(name: str, path: Path) -> str:
    """What is wrong with a file that is there; empty where nothing is."""
    try:
        check_sha256(path, WEIGHTS[name].sha256)
        LOADERS.get(name, try_archive if name in TORCHSCRIPT else read_checkpoint)(path)
    except (LatentSyncError, OSError) as error:
        return str(error)
    return ""
