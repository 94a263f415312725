"""What is inside a checkpoint file: its kind by its first bytes, and the weights among what programs put around them."""

import json
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentsync.errors import WeightsError

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
_MOST_JSON = 64 << 20  # bytes of a JSON file that is looked into for what it is
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


def read_file(path: Path) -> Any:
    """What safetensors or `torch.save` wrote into a file, on the CPU. Raises WeightsError, which says what the file is instead."""
    try:
        return _read(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(refusal(path, str(error))) from error
    except _UNREADABLE as error:
        raise WeightsError(refusal(path)) from error


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if is_safetensors(head):
        return load_file(path)
    if path.suffix == ".safetensors":  # torch goes by the name of a path, so it gets an open file
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    if is_zipfile(path) and is_program(path):
        raise ValueError
    return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))


def _can_be_mapped(path: Path) -> bool:
    """Whether tensors lie in a file as they are: not in torch's older format, and not in a compressed archive, whose bytes torch would take
    for numbers."""
    if not is_zipfile(path):
        return False
    with ZipFile(path) as archive:
        return all(entry.compress_type == ZIP_STORED for entry in archive.infolist())


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON text and that text."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER


def is_program(path: Path) -> bool:
    """Whether a ZIP archive is a TorchScript program, which torch would run in place of reading it."""
    return "constants.pkl" in names_in(path)


def names_in(archive: Path) -> set[str]:
    """Names of the files in a ZIP archive, without folders."""
    with ZipFile(archive) as content:
        return {name.rpartition("/")[2] for name in content.namelist()}


def refusal(path: Path, reason: str = "") -> str:
    """Why a file could not be read, judged by its size and its first bytes."""
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
        if is_program(path):
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
    told: list[str] = []
    average = _without_prefixes(average, part, told if not plain else [])
    plain = _without_prefixes(plain, part, told)
    notes += told
    if plain and average:
        same = plain.keys() == average.keys()
        taken = "the average is taken" if same else "the weights are taken, since the names of the average are others"
        notes.append(f"it holds weights and their moving average; {taken}")
        return average if same else plain
    return plain or average


def _groups(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Named tensors inside nested dictionaries: plain weights and their moving average; either may be empty."""
    inner = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Mapping)}
    average = next(filter(None, (_either(_groups(inner[key])) for key in _AVERAGES if key in inner)), {})
    for key in _WRAPPERS:
        plain, nested = _groups(inner[key]) if key in inner else ({}, {})
        if plain or nested:
            return plain, average or nested
    named = {key: value for key, value in content.items() if _is_named_tensor(key, value)}
    if not named:
        others = [_either(_groups(value)) for key, value in inner.items() if key not in _AVERAGES and not _TRAINING_STATE.search(key)]
        found = [group for group in others if group]
        return found[0] if len(found) == 1 else {}, average
    starts = tuple(f"{key}." for key in _AVERAGES)
    own = {key.split(".", 1)[1]: value for key, value in named.items() if key.startswith(starts)}
    plain = {key: value for key, value in named.items() if not key.startswith(starts)}
    return _without_counters(plain), average or _without_counters(own)


def _either(groups: tuple[dict[str, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    return groups[0] or groups[1]


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


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)
