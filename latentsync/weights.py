"""Weight files: one table of what exists and where it belongs, and the one door through which such files are read."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from latentsync.checkpoint_content import read_file, weights_in
from latentsync.errors import WeightsError

logger = logging.getLogger(__name__)

CHECKPOINTS = Path("checkpoints")  # folder of all weight files, relative to the project's root
FLAT_UNET = Path("latentsync_unet.pt")  # a denoiser in the published layout, relative to that folder; its version is not written there
WHISPER_BY_WIDTH = {384: "whisper-tiny", 768: "whisper-small"}  # width of an audio token -> published audio encoder
VERSIONS = ("1.6", "1.5", "1.0")  # published versions of the method, newest first
_LATENTSYNC = {"1.6": "ByteDance/LatentSync-1.6", "1.5": "ByteDance/LatentSync-1.5", "1.0": "ByteDance/LatentSync"}
_FAN = "https://www.adrianbulat.com/downloads/python-fan/"
_INCEPTION = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
V10_MARK = ".audio_cross_attn."  # in names of version 1.0 alone; those of 1.5 and 1.6 are the same

_BLOCK = 1 << 20  # bytes that are read at once


@dataclass(frozen=True)
class WeightFile:
    """One file that a network is loaded from.

    Attributes:
        path: where it belongs, relative to the folder of weight files (`checkpoints/`).
        repository: Hugging Face repository, or None where `source` is an address to download from.
        source: file name inside the repository, or the address.
        licence: what its authors allow.
        purpose: what needs it, for the sentence a user reads.
        sha256: checksum, or its first digits where only those are known; None where the authors give none.
        required: False for files that the project works without.
        training: True for files that only training, the making of its data, or evaluation needs.
        flat: where it lies, relative to the same folder, after following the instructions of the published project.
        spare: name of another file that is as good, in the same folder or repository.
    """

    path: Path
    repository: str | None
    source: str
    licence: str
    purpose: str
    sha256: str | None = None
    required: bool = True
    training: bool = False
    flat: Path | None = None
    spare: str | None = None

    @property
    def origin(self) -> str:
        """Where a person gets the file."""
        return self.source if self.repository is None else f"{self.source} of the Hugging Face repository {self.repository}"


def _unet(version: str) -> WeightFile:
    path = Path(f"latentsync-{version}/latentsync_unet.pt")
    return WeightFile(path, _LATENTSYNC[version], path.name, "OpenRAIL++", f"the denoiser of version {version}", flat=FLAT_UNET)


def _vae(name: str, spare: str | None = None) -> WeightFile:
    return WeightFile(Path("sd-vae-ft-mse") / name, "stabilityai/sd-vae-ft-mse", name, "MIT", "pixels to latents and back", spare=spare)


def _judge(name: str, licence: str, purpose: str) -> WeightFile:
    """A network by which data are chosen and results are measured."""
    source = f"auxiliary/{name}"
    why = f"data processing and evaluation: {purpose}"
    return WeightFile(Path(source), _LATENTSYNC["1.6"], source, licence, why, required=False, training=True)


def _file_of(address: str, purpose: str, sha256: str | None = None, licence: str = "BSD-3-Clause", training: bool = False) -> WeightFile:
    """A file that the project works without, from an address of its own."""
    return WeightFile(
        Path("auxiliary") / address.rsplit("/", 1)[1], None, address, licence, purpose, sha256, required=False, training=training
    )


WEIGHTS: Mapping[str, WeightFile] = {
    **{f"unet-{version}": _unet(version) for version in VERSIONS},
    "whisper-tiny": WeightFile(
        Path("whisper/tiny.pt"),
        _LATENTSYNC["1.6"],
        "whisper/tiny.pt",
        "MIT",
        "hearing the audio",
    ),
    "whisper-small": WeightFile(
        Path("whisper/small.pt"),
        None,
        "https://openaipublic.azureedge.net/main/whisper/models/9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794/small.pt",
        "MIT",
        "hearing the audio, for networks trained with 768-wide audio tokens (OpenAI's own file)",
        "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
        required=False,
    ),
    "vae-config": _vae("config.json"),
    "vae": _vae("diffusion_pytorch_model.safetensors", spare="diffusion_pytorch_model.bin"),
    "s3fd": _file_of(
        _FAN + "s3fd-619a316812.pth", "finding faces with face-alignment (without it the built-in detector is used)", "619a316812"
    ),
    "2dfan4": _file_of(_FAN + "2DFAN4-11f355bf06.pth.tar", "68 face landmarks with face-alignment (as above)", "11f355bf06"),
    "syncnet": WeightFile(
        Path("latentsync-1.6/stable_syncnet.pt"),
        _LATENTSYNC["1.6"],
        "stable_syncnet.pt",
        "OpenRAIL++",
        "training with SyncNet's opinion of mouth and sound",
        required=False,
        training=True,
        flat=Path("stable_syncnet.pt"),
    ),
    "vgg16": _file_of(
        "https://download.pytorch.org/models/vgg16-397923af.pth", "training with LPIPS, how alike two faces look", "397923af", training=True
    ),
    "videomae": WeightFile(
        Path("auxiliary/vit_g_hybrid_pt_1200e_ssv2_ft.pth"),
        _LATENTSYNC["1.6"],
        "auxiliary/vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        "CC-BY-NC-4.0",
        "training with TREPA, how alike two clips move (VideoMAE v2)",
        required=False,
        training=True,
    ),
    "sfd_face": _judge("sfd_face.pth", "MIT", "finding faces for SyncNet v2 (S3FD, of the repository joonson/syncnet_python)"),
    "syncnet_v2": _judge("syncnet_v2.model", "MIT", "offset and confidence of mouth and sound (of the repository joonson/syncnet_python)"),
    "hyperiqa": _judge("koniq_pretrained.pkl", "MIT", "judging how good a picture looks (hyperIQA, of the repository SSL92/hyperIQA)"),
    "i3d": _judge("i3d_torchscript.pt", "Apache-2.0", "FVD, how alike two sets of videos are (I3D)"),
    "inception": _file_of(_INCEPTION, "evaluation: FID, how alike two sets of faces are (Inception)", licence="Apache-2.0", training=True),
}


def select_weights(versions: Iterable[str] = VERSIONS) -> dict[str, WeightFile]:
    """The table without the denoisers of versions that are not asked for."""
    skipped = {f"unet-{version}" for version in VERSIONS} - {f"unet-{version}" for version in versions}
    return {name: weight for name, weight in WEIGHTS.items() if name not in skipped}


def missing_weights(checkpoints: Path = CHECKPOINTS, versions: Iterable[str] = VERSIONS) -> dict[str, str]:
    """Name -> one line for each file that is not there: its place, what needs it, where it comes from."""
    return {
        name: f"{checkpoints / weight.path}: {'missing' if weight.required else 'optional'}, for {weight.purpose}; get {weight.origin}"
        for name, weight in select_weights(versions).items()
        if find_weights(name, checkpoints) is None
    }


def find_weights(name: str, checkpoints: Path = CHECKPOINTS) -> Path | None:
    """Where a file of the table is: in its own place, in that of the published layout, or in the cache of huggingface_hub; else None.

    A denoiser in the published layout counts for one version alone, that of `tell_version`. Nothing is downloaded.
    """
    weight = WEIGHTS[name]
    places = [weight.path, weight.path.with_name(weight.spare or weight.path.name), weight.flat or weight.path]
    for place in places:
        if (checkpoints / place).is_file() and (place != FLAT_UNET or name == f"unet-{tell_version(checkpoints / place)}"):
            return checkpoints / place
    for source in (weight.source, weight.spare):
        found = try_to_load_from_cache(weight.repository, source) if weight.repository and source else None
        if isinstance(found, str):
            return Path(found)
    return None


def weights_path(name: str, checkpoints: Path = CHECKPOINTS) -> Path:
    """Where a file of the table is, or where it belongs."""
    return find_weights(name, checkpoints) or checkpoints / WEIGHTS[name].path


def stated_version(path: Path) -> str | None:
    """The published version that the folder of a denoiser names: ours (latentsync-1.5), or its repository's in a cache; else None."""
    folders = {path.parent.name.lower(), *(parent.name.lower() for parent in path.parents[2:3])}
    known = {name: version for version, source in _LATENTSYNC.items() for name in (f"latentsync-{version}", _cache_folder(source))}
    return next((version for name, version in known.items() if name in folders), None)


def _cache_folder(repository: str) -> str:
    """Of a repository, in the cache of huggingface_hub; in lower case."""
    return f"models--{repository.replace('/', '--')}".lower()


def tell_version(path: Path) -> str:
    """The published version of a denoiser by the names in its file: 1.0, or else the newest, since 1.5 and 1.6 differ in values alone.

    A file that cannot be read counts as the newest: whoever loads it is told what is wrong.
    """
    try:
        names = weights_in(path, read_checkpoint(path), (), [])
    except WeightsError:
        return VERSIONS[0]
    return "1.0" if any(V10_MARK in name for name in names) else VERSIONS[0]


def check_sha256(path: Path, expected: str | None) -> None:
    """Compare a file with its checksum (or the checksum's first digits); nothing is checked where none is known.

    Raises:
        WeightsError: the file is another one.
    """
    if expected is None:
        return
    found = file_sha256(path)
    if not found.startswith(expected):
        raise WeightsError(f"{path} has checksum {found[:10]}… instead of {expected[:10]}…: delete it and download it again.")


def file_sha256(path: Path, hint: str = "check the path") -> str:
    """The checksum of a file. Raises WeightsError, with the `hint` what to do, where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): {hint}") from None
    return digest.hexdigest()


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """A weight file as the dictionary that was saved, on the CPU; nothing in the file is ever executed.

    Tensors of a zip-format torch file are memory-mapped, so that reading a large file costs little until a tensor is used.

    Args:
        path: a file that safetensors or `torch.save` wrote; its content tells which, whatever its name ends with.

    Raises:
        WeightsError: the file is missing, empty, cut short, no checkpoint, or holds more than tensors and plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: name the weight file inside it.")
    if not path.exists():
        command = "python -m scripts.download_weights"
        raise WeightsError(
            f"{path} does not exist: run `{command}` (with --training for training), which fetches it or says where to get it."
        )
    checkpoint = read_file(path)
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise WeightsError(f"{path} holds {type(checkpoint).__name__} data in place of named weights: name another file.")
    return checkpoint


def read_state_dict(path: Path | str, part: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], int | None]:
    """Weights by name, and the training step they were saved at where the file says so.

    Accepts {"state_dict": ..., "global_step": ...}, a bare dictionary of tensors, and what other programs make of either: dictionaries
    of other names around it, prefixes before every name ("module." of distributed training, "_orig_mod." of compilation), a moving
    average beside the weights, which is preferred. What was taken is logged where there was a choice.

    Args:
        part: prefixes of the network that is wanted, where a file holds several networks ("unet." beside "vae.").

    Raises:
        WeightsError: as `read_checkpoint`, and if the file holds something else than one network's named tensors.
    """
    checkpoint, notes = read_checkpoint(path), []
    weights, step = weights_in(Path(path), checkpoint, part, notes), checkpoint.get("global_step")
    for note in notes:
        logger.warning("%s: %s.", path, note)
    return weights, step if isinstance(step, int) else None


def load_strict(module: nn.Module, state_dict: Mapping[str, torch.Tensor], path: Path | str, hint: str = "", assign: bool = False) -> None:
    """Load weights that must fit name by name and shape by shape.

    Args:
        path: the file the weights came from, for the message.
        hint: what to do about a misfit; ends the sentence.
        assign: put the tensors themselves into the module (for one built on the meta device) instead of copying their values.

    Raises:
        WeightsError: one sentence with the counts and first examples of missing, unexpected and misshaped entries.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state_dict]
    unexpected = [key for key in state_dict if key not in wanted]
    misshaped = [
        f"{key} {list(state_dict[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in state_dict and state_dict[key].shape != wanted[key].shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if any(problems.values()):
        parts = [f"{len(found)} {problem} (such as {found[0]})" for problem, found in problems.items() if found]
        advice = hint or "name the file that belongs to this network"
        raise WeightsError(f"{path} does not fit {type(module).__name__}: of {len(wanted)} entries {', '.join(parts)}; {advice}.")
    module.load_state_dict(dict(state_dict), strict=True, assign=assign)
