"""Weight files: what exists, where it belongs, how it is read by its content."""

import hashlib
import json
import logging
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentsync.errors import WeightsError

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
_BATCH_COUNTER = ".num_batches_tracked"  # of batch norm: for training alone, and absent from files older than PyTorch 0.4.1

# What programs put around the weights of a network: names of dictionaries, and what names of entries begin with.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "unet", "network", "net", "generator", "params", "weights", "shadow")
_AVERAGES = ("ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "unet_ema", "ema_unet", "params_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.diffusion_model.", "diffusion_model.", "first_stage_model.", "model.", "unet.", "vae.")
_COUNTERS = {"decay", "num_updates", "n_averaged", "initted", "step"}  # entries of a moving average that are no weights
_TRAINING_STATE = re.compile(r"optim|sched|scaler|rng|random|callbacks|loops|hparams|hyper_parameters")  # dictionaries that hold no weights
_LORA = re.compile(r"lora[_.](A|B|up|down|embedding)|\.lora\.|\.hada_w|\.lokr_w")
_ZIP_MAGIC = b"PK"  # of what `torch.save` has written since version 1.6
_PICKLE_MAGIC = b"\x80"  # of what it wrote before
_SAFETENSORS_HEADER = 100 << 20  # bytes: the format's limit of the JSON that follows its first eight bytes
_PROGRAM = "constants.pkl"  # in a ZIP archive: it is a TorchScript program
_MOST_JSON = 64 << 20  # bytes of a JSON file that is parsed to tell what it is
_NO_WEIGHTS = {  # beginning of a file, in lower case -> what it is and what to do
    b"version https://git-lfs": "is a Git LFS pointer in place of the file: run `git lfs pull` where it was cloned, or download it itself",
    b"<": "is a web page that was saved in place of the file: download it again, signed in where the site asks for that",
    b"\x1f\x8b": "is a compressed archive: unpack it and name the file inside",
    b"7z\xbc\xaf": "is a compressed archive: unpack it and name the file inside",
    b"gguf": "is a GGUF file, whose quantised weights cannot be used: name a file that `torch.save` or safetensors wrote",
}
_UNREADABLE = (  # what torch and safetensors raise on files that are damaged or something else
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, struct.error, SafetensorError, BadZipFile),
)


def _read(path: Path) -> Any:
    """What safetensors or `torch.save` wrote into a file, on the CPU; raises one of `_UNREADABLE` or a pickle error."""
    with path.open("rb") as file:
        head = file.read(9)
    if is_safetensors(head):
        return load_file(path)
    if path.suffix == ".safetensors":  # torch goes by the name of a path, so it gets an open file
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    if not is_zipfile(path):  # torch's older format
        return torch.load(path, map_location="cpu", weights_only=True)
    if _PROGRAM in names_in(path):  # torch would run it in place of reading it
        raise ValueError
    with ZipFile(path) as archive:  # of a compressed archive torch would take the bytes for numbers
        can_be_mapped = all(entry.compress_type == ZIP_STORED for entry in archive.infolist())
    return torch.load(path, map_location="cpu", weights_only=True, mmap=can_be_mapped)


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON text and that text."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER


def names_in(archive: Path) -> set[str]:
    """Names of the files in a ZIP archive, without folders."""
    with ZipFile(archive) as content:
        return {name.rpartition("/")[2] for name in content.namelist()}


def is_whole_archive(path: Path) -> bool:
    """Whether a file is a ZIP archive, as torch writes them, and all of it is there; nothing in it is executed."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except (BadZipFile, EOFError, OSError):
        return False


def refusal(path: Path, reason: str = "") -> str:
    """Why a file could not be read, going by its size and its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): check its permissions."
    if not head:
        return f"{path} is empty: delete it and download it again."
    known = next((words for start, words in _NO_WEIGHTS.items() if head.lstrip().lower().startswith(start)), None)
    if known is not None:
        return f"{path} {known}."
    if head.lstrip().startswith(b"{"):
        return f"{path} {_about_json(path)}."
    if is_zipfile(path):
        if _PROGRAM in names_in(path):
            return f"{path} is a TorchScript program and no file of weights: name a file that `torch.save` or safetensors wrote."
        if "data.pkl" not in names_in(path):
            return f"{path} is a ZIP archive of other files: unpack it and name the file inside."
    if "nsupported" in reason and "Unsupported operand" not in reason:  # an operand is noise; a class or function is a program
        return f"{path} holds Python objects besides tensors and was refused, since they could run code: use a file of weights alone."
    if head.startswith((_ZIP_MAGIC, _PICKLE_MAGIC)) or is_safetensors(head):
        return f"{path} is cut short or damaged: delete it and download it again."
    return f"{path} is not a checkpoint (it begins with {head[:16]!r}): name a file that `torch.save` or safetensors wrote."


def _about_json(path: Path) -> str:
    """What a JSON file in the place of weights is, and what to do."""
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MOST_JSON else None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("weight_map"), dict):
        return "is a JSON text and no file of weights: name the weights beside it"
    parts = sorted(set(map(str, content["weight_map"].values())))
    return f"is the index of a checkpoint in {len(parts)} files ({', '.join(parts[:2])} ...): put all weights into one file and name that"


def weights_in(path: Path, checkpoint: Mapping[str, Any], part: tuple[str, ...], notes: list[str]) -> dict[str, Tensor]:
    """The weights among what a file holds, without what was put around them; `notes` gets a sentence for each thing that was decided."""
    plain, average = _groups(checkpoint)
    if not plain and not average:
        names = ", ".join(repr(key) for key in list(checkpoint)[:4])
        if {"state", "param_groups"} <= checkpoint.keys():
            raise WeightsError(f"{path} holds the state of an optimizer and no weights: name the file of the network beside it.")
        raise WeightsError(f"{path} holds {names} but no plain dictionary of tensors: name a file that holds only this network's weights.")
    if any(_LORA.search(name) for name in (*plain, *average)):
        raise WeightsError(
            f"{path} holds a LoRA, which is a change to a network and not a network: merge it into the weights that it was trained on, "
            "and name the merged file."
        )
    average = _without_prefixes(average, part, notes if not plain else [])
    plain = _without_prefixes(plain, part, notes)
    if plain and average:
        same = plain.keys() == average.keys()
        taken = "the average is taken" if same else "the weights are taken, since the names of the average are others"
        notes.append(f"it holds weights and their moving average; {taken}")
        return average if same else plain
    return plain or average


def _groups(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Named tensors inside nested dictionaries: plain weights and their moving average; either may be empty."""
    inner = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)}
    averages = [_groups(inner[key]) for key in _AVERAGES if key in inner]
    average = next((plain or own for plain, own in averages if plain or own), {})
    for key in _WRAPPERS:
        plain, nested = _groups(inner[key]) if key in inner else ({}, {})
        if plain or nested:
            return plain, average or nested
    named = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not named:
        others = [_groups(value) for key, value in inner.items() if key not in _AVERAGES and not _TRAINING_STATE.search(key)]
        found = [plain or own for plain, own in others if plain or own]
        return found[0] if len(found) == 1 else {}, average
    starts = tuple(f"{key}." for key in _AVERAGES)
    own = {key.split(".", 1)[1]: value for key, value in named.items() if key.startswith(starts)}
    plain = {key: value for key, value in named.items() if not key.startswith(starts)}
    return _without_counters(plain), average or _without_counters(own)


def _without_counters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key not in _COUNTERS or value.numel() != 1}


def _without_prefixes(weights: dict[str, Tensor], part: tuple[str, ...], notes: list[str]) -> dict[str, Tensor]:
    """Weights without what every name begins with, or, of a file with several networks, those whose names begin with `part`."""
    for prefix in _PREFIXES * 2:  # twice, since some are put before others
        some = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if not some or (len(some) < len(weights) and prefix not in part):
            continue
        others = f", and {len(weights) - len(some)} entries of other networks left out" if len(some) < len(weights) else ""
        notes.append(f"names begin with {prefix!r}, as other programs write them; taken off{others}")
        weights = some
    return {key.replace("._orig_mod.", "."): value for key, value in weights.items()}


CHECKPOINTS = Path("checkpoints")  # folder of all weight files, relative to the project's root
FLAT_UNET = Path("latentsync_unet.pt")  # a denoiser in the published layout, relative to that folder; its version is not written there
WHISPER_BY_WIDTH = {384: "whisper-tiny", 768: "whisper-small"}  # width of an audio token -> published audio encoder
VERSIONS = ("1.6", "1.5", "1.0")  # published versions of the method, newest first
_LATENTSYNC = {"1.6": "ByteDance/LatentSync-1.6", "1.5": "ByteDance/LatentSync-1.5", "1.0": "ByteDance/LatentSync"}
_FAN = "https://www.adrianbulat.com/downloads/python-fan/"
_WHISPER_SMALL = "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794"
_BSD = "BSD-3-Clause"
_INCEPTION = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
V10_MARK = ".audio_cross_attn."  # in names of version 1.0 alone; those of 1.5 and 1.6 are the same
_BLOCK = 1 << 20  # bytes that are read at once


@dataclass(frozen=True)
class WeightFile:
    """One file that a network is loaded from."""

    path: Path  # where it belongs, relative to the folder of weight files (`checkpoints/`)
    repository: str | None  # of Hugging Face, or None where `source` is an address to download from
    source: str  # file name inside the repository, or the address
    licence: str
    purpose: str  # what needs it, for the sentence a user reads
    sha256: str | None = None  # checksum, or its first digits where only those are known; None where the authors give none
    required: bool = True  # False: the project works without
    training: bool = False  # only training, data processing or evaluation needs it
    flat: Path | None = None  # where it lies after following the instructions of the published project
    spare: str | None = None  # another file that is as good, in the same folder or repository
    megabytes: int | None = None  # its size, roughly; None where it is not known here

    @property
    def origin(self) -> str:
        """Where a person gets the file."""
        return self.source if self.repository is None else f"{self.source} of the Hugging Face repository {self.repository}"


def _published(source: str, licence: str, purpose: str, **more: Any) -> WeightFile:
    """A file of the newest published repository, in the same place there and here."""
    return WeightFile(Path(source), _LATENTSYNC["1.6"], source, licence, purpose, **more)


_TRAINING: dict[str, Any] = {"required": False, "training": True}


def _measuring(name: str, licence: str, purpose: str) -> WeightFile:
    return _published(f"auxiliary/{name}", licence, f"data processing and evaluation: {purpose}", **_TRAINING)


_UNET_MEGABYTES = {"1.6": 5070, "1.5": 5070, "1.0": 3400}  # 1267 and 850 million parameters in float32


def _versioned(name: str, version: str, purpose: str, **more: Any) -> WeightFile:
    """A file of a published repository that lies in a folder of its version here, or without one after the published instructions."""
    path = Path(f"latentsync-{version}") / name
    return WeightFile(path, _LATENTSYNC[version], name, "OpenRAIL++", purpose, flat=Path(name), **more)


def _of_vae(name: str, **more: Any) -> WeightFile:
    return WeightFile(Path("sd-vae-ft-mse") / name, "stabilityai/sd-vae-ft-mse", name, "MIT", "pixels to latents and back", **more)


def _of_address(address: str, licence: str, purpose: str, sha256: str | None = None, **more: Any) -> WeightFile:
    """A file that the project works without, from an address of its own."""
    return WeightFile(Path("auxiliary") / address.rsplit("/", 1)[1], None, address, licence, purpose, sha256, required=False, **more)


WEIGHTS: Mapping[str, WeightFile] = {
    **{
        f"unet-{version}": _versioned(FLAT_UNET.name, version, f"the denoiser of version {version}", megabytes=_UNET_MEGABYTES[version])
        for version in VERSIONS
    },
    "whisper-tiny": _published("whisper/tiny.pt", "MIT", "audio features", megabytes=76),
    "whisper-small": WeightFile(
        Path("whisper/small.pt"),
        None,
        f"https://openaipublic.azureedge.net/main/whisper/models/{_WHISPER_SMALL}/small.pt",
        "MIT",
        "audio features for networks trained with 768-wide audio tokens (OpenAI's own file)",
        _WHISPER_SMALL,
        required=False,
        megabytes=484,
    ),
    "vae-config": _of_vae("config.json"),
    "vae": _of_vae("diffusion_pytorch_model.safetensors", spare="diffusion_pytorch_model.bin", megabytes=335),
    "s3fd": _of_address(
        _FAN + "s3fd-619a316812.pth",
        _BSD,
        "face detection with face-alignment (without it the built-in detector is used)",
        "619a316812",
        megabytes=90,
    ),
    "2dfan4": _of_address(
        _FAN + "2DFAN4-11f355bf06.pth.tar", _BSD, "68 face landmarks with face-alignment (as above)", "11f355bf06", megabytes=96
    ),
    "syncnet": _versioned("stable_syncnet.pt", "1.6", "training: the sync losses (SyncNet)", **_TRAINING),
    "vgg16": _of_address(
        "https://download.pytorch.org/models/vgg16-397923af.pth", _BSD, "training: LPIPS (VGG-16)", "397923af", training=True, megabytes=553
    ),
    "videomae": _published("auxiliary/vit_g_hybrid_pt_1200e_ssv2_ft.pth", "CC-BY-NC-4.0", "training: TREPA (VideoMAE v2)", **_TRAINING),
    "sfd_face": _measuring("sfd_face.pth", "MIT", "face detection for SyncNet v2 (S3FD, of the repository joonson/syncnet_python)"),
    "syncnet_v2": _measuring("syncnet_v2.model", "MIT", "audio-visual offset and confidence (of the repository joonson/syncnet_python)"),
    "hyperiqa": _measuring("koniq_pretrained.pkl", "MIT", "image quality (hyperIQA, of the repository SSL92/hyperIQA)"),
    "i3d": _measuring("i3d_torchscript.pt", "Apache-2.0", "FVD (I3D)"),
    "inception": _of_address(_INCEPTION, "Apache-2.0", "evaluation: FID (Inception)", training=True),
}


def missing_weights(checkpoints: Path = CHECKPOINTS, versions: Iterable[str] = VERSIONS) -> dict[str, str]:
    """Name -> one line for each file that is not there: its place, what needs it, where it comes from; of denoisers those `versions`."""
    skipped = {f"unet-{version}" for version in VERSIONS} - {f"unet-{version}" for version in versions}
    return {
        name: f"{checkpoints / weight.path}: {'missing' if weight.required else 'optional'}, for {weight.purpose}; get {weight.origin}"
        for name, weight in WEIGHTS.items()
        if name not in skipped and find_weights(name, checkpoints) is None
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
    for version, repository in _LATENTSYNC.items():
        if folders & {f"latentsync-{version}", f"models--{repository.replace('/', '--')}".lower()}:
            return version
    return None


def tell_version(path: Path) -> str:
    """The published version of a denoiser by the names in its file: 1.0, or else the newest, since 1.5 and 1.6 differ in values alone.

    A file that cannot be read counts as the newest: loading it tells what is wrong.
    """
    try:
        names = weights_in(path, read_checkpoint(path), (), [])
    except WeightsError:
        return VERSIONS[0]
    return "1.0" if any(V10_MARK in name for name in names) else VERSIONS[0]


def check_sha256(path: Path, expected: str | None) -> None:
    """Raises WeightsError where a file has another checksum (or first digits of it); nothing is checked where none is known."""
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

    Its content tells whether safetensors or `torch.save` wrote it. Tensors of a zip-format torch file are memory-mapped, so that reading a
    large file costs little until a tensor is used. Raises WeightsError where it is no whole checkpoint of tensors and plain values.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: name the weight file inside it.")
    if not path.exists():
        advice = "run `python -m scripts.download_weights` (with --training for training), which fetches it or says where to get it"
        raise WeightsError(f"{path} does not exist: {advice}.")
    try:
        checkpoint = _read(path)
    except (pickle.UnpicklingError, *_UNREADABLE) as error:
        raise WeightsError(refusal(path, str(error) if isinstance(error, pickle.UnpicklingError) else "")) from error
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise WeightsError(f"{path} holds {type(checkpoint).__name__} data in place of named weights: name another file.")
    return checkpoint


def read_state_dict(path: Path | str, part: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], int | None]:
    """Weights by name, and the training step they were saved at where the file says so.

    Accepts {"state_dict": ..., "global_step": ...}, a bare dictionary of tensors, and what other programs make of either: dictionaries
    of other names around it, prefixes before every name ("module." of distributed training, "_orig_mod." of compilation), a moving
    average beside the weights, which is preferred. What was taken is logged where there was a choice. `part` are prefixes of the network
    that is wanted, where a file holds several ("unet." beside "vae."). Raises WeightsError, too, where it holds no network's named tensors.
    """
    checkpoint, notes = read_checkpoint(path), []
    weights, step = weights_in(Path(path), checkpoint, part, notes), checkpoint.get("global_step")
    for note in notes:
        logger.warning("%s: %s.", path, note)
    return weights, step if isinstance(step, int) else None


def load_strict(module: nn.Module, state_dict: Mapping[str, torch.Tensor], path: Path | str, hint: str = "", assign: bool = False) -> None:
    """Load weights that must fit name by name and shape by shape.

    `path` and `hint`, what to do about a misfit, are for the message. `assign` puts the tensors themselves into the module (built on the
    meta device). Raises WeightsError: one sentence with the counts and first examples of missing, unexpected and misshaped entries.
    """
    wanted = module.state_dict()
    shapes = [(key, list(state_dict[key].shape), list(value.shape)) for key, value in wanted.items() if key in state_dict]
    problems = {
        "missing": [key for key in wanted if key not in state_dict],
        "unexpected": [key for key in state_dict if key not in wanted],
        "of another shape": [f"{key} {given} instead of {own}" for key, given, own in shapes if given != own],
    }
    if any(problems.values()):
        parts = [f"{len(found)} {problem} (such as {found[0]})" for problem, found in problems.items() if found]
        advice = hint or "name the file that belongs to this network"
        raise WeightsError(f"{path} does not fit {type(module).__name__}: of {len(wanted)} entries {', '.join(parts)}; {advice}.")
    module.load_state_dict(dict(state_dict), strict=True, assign=assign)


def renamed(state_dict: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Entries with parts of their names replaced; other names pass."""
    for old, new in names.items():
        state_dict = {key.replace(old, new): value for key, value in state_dict.items()}
    return dict(state_dict)


def load_frozen(build: Callable[[], Network], path: Path | str, hint: str) -> Network:
    """A published network that is only used, not trained: float32 on the CPU, in evaluation mode, no weight of it trainable.

    `build` makes it without weights; `hint` says what to do about a file that does not fit. Raises WeightsError.
    """
    weights, _ = read_state_dict(path)
    with torch.device("meta"):
        network = build()
    counters = {key: torch.tensor(0) for key in network.state_dict() if key.endswith(_BATCH_COUNTER)}
    load_strict(network, {**counters, **weights}, path, hint, assign=True)
    return network.float().eval().requires_grad_(False)
