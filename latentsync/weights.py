"""Weight files: one table of what exists and where it belongs, and the one door through which such files are read."""

import hashlib
import logging
import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from latentsync.errors import WeightsError

logger = logging.getLogger(__name__)

CHECKPOINTS = Path("checkpoints")  # folder of all weight files, relative to the project's root
WHISPER_BY_WIDTH = {384: "whisper-tiny", 768: "whisper-small"}  # width of an audio token -> published audio encoder
VERSIONS = ("1.6", "1.5", "1.0")  # published versions of the method, newest first
_LATENTSYNC = {"1.6": "ByteDance/LatentSync-1.6", "1.5": "ByteDance/LatentSync-1.5", "1.0": "ByteDance/LatentSync"}
_FAN = "https://www.adrianbulat.com/downloads/python-fan/"
_INCEPTION = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
_DDP_PREFIX = "module."
_BLOCK = 1 << 20  # bytes that are read at once
_ZIP_MAGIC = b"PK"  # of what `torch.save` has written since version 1.6
_PICKLE_MAGIC = b"\x80"  # of what it wrote before
_UNREADABLE = (  # what torch and safetensors raise on files that are damaged or something else
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, struct.error, SafetensorError, BadZipFile),
)


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
    """

    path: Path
    repository: str | None
    source: str
    licence: str
    purpose: str
    sha256: str | None = None
    required: bool = True
    training: bool = False

    @property
    def origin(self) -> str:
        """Where a person gets the file."""
        return self.source if self.repository is None else f"{self.source} of the Hugging Face repository {self.repository}"


def _unet(version: str) -> WeightFile:
    path = Path(f"latentsync-{version}/latentsync_unet.pt")
    return WeightFile(path, _LATENTSYNC[version], "latentsync_unet.pt", "OpenRAIL++", f"the denoiser of version {version}")


def _vae(name: str) -> WeightFile:
    return WeightFile(Path("sd-vae-ft-mse") / name, "stabilityai/sd-vae-ft-mse", name, "MIT", "pixels to latents and back")


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
    "vae": _vae("diffusion_pytorch_model.safetensors"),
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
        if not (checkpoints / weight.path).is_file()
    }


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
        path: a .safetensors file, or one that `torch.save` wrote.

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
    try:
        checkpoint = _read(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(_refusal(path, str(error))) from error
    except _UNREADABLE as error:
        raise WeightsError(_refusal(path)) from error
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise WeightsError(f"{path} holds {type(checkpoint).__name__} data in place of named weights: name another file.")
    return checkpoint


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))


def _can_be_mapped(path: Path) -> bool:
    """Whether tensors lie in a file as they are: not in torch's older format, and not in a compressed archive, whose bytes torch would take
    for numbers."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return all(entry.compress_type == ZIP_STORED for entry in archive.infolist())


def _refusal(path: Path, reason: str = "") -> str:
    """Why a file could not be read, judged by its size and its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): check its permissions."
    if not head:
        return f"{path} is empty: delete it and download it again."
    if "nsupported" in reason and "Unsupported operand" not in reason:  # an operand is noise; a class or function is a program
        return f"{path} holds Python objects besides tensors and was refused, since they could run code: use a file of weights alone."
    if head.startswith((_ZIP_MAGIC, _PICKLE_MAGIC)) or path.suffix == ".safetensors":
        return f"{path} is cut short or damaged: delete it and download it again."
    return f"{path} is not a checkpoint (it begins with {head[:16]!r}): name a file that `torch.save` or safetensors wrote."


def read_state_dict(path: Path | str) -> tuple[dict[str, torch.Tensor], int | None]:
    """Weights by name, and the training step they were saved at where the file says so.

    Accepts {"state_dict": ..., "global_step": ...} and a bare dictionary of tensors. The "module." that distributed training
    puts before every name is taken off with a warning; nothing else is changed.

    Raises:
        WeightsError: as `read_checkpoint`, and if the file holds something else than named tensors.
    """
    checkpoint = read_checkpoint(path)
    state_dict, step = checkpoint.get("state_dict", checkpoint), checkpoint.get("global_step")
    if not isinstance(state_dict, dict) or not state_dict or not all(_is_named_tensor(*item) for item in state_dict.items()):
        names = ", ".join(repr(key) for key in list(checkpoint)[:4])
        raise WeightsError(f"{path} holds {names} but no plain dictionary of tensors: name a file that holds only this network's weights.")
    if all(key.startswith(_DDP_PREFIX) for key in state_dict):
        logger.warning("%s: every name begins with %r, as distributed training writes it; taken off.", path, _DDP_PREFIX)
        state_dict = {key.removeprefix(_DDP_PREFIX): value for key, value in state_dict.items()}
    return dict(state_dict), step if isinstance(step, int) else None


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


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
