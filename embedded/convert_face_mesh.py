"""Convert the network of FaceMesh from the wheel that holds it."""

import argparse
import logging
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, nn

from embedded.pack import write_weights
from latentsync.cli import CODES, run_command
from latentsync.errors import InputError, first_line
from latentsync.third_party.face_mesh import FACE_MESH, FaceMesh, load_face_mesh
from latentsync.weights import file_sha256

logger = logging.getLogger("latentsync")
PACKAGE, SHA256 = "mediapipe==0.10.21", "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
MEMBER = "mediapipe/modules/face_landmark/face_landmark.tflite"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.convert_face_mesh",
        description=f"Write the 468-point landmark network of {PACKAGE} in half precision. Needs ./setup_env.sh --with-speech.",
        epilog=CODES,
    )
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE} for Python 3.11 (default: fetched with pip)")
    parser.add_argument("--output", type=Path, default=FACE_MESH, help="file to write (default: in assets/embedded)")
    return parser.parse_args(arguments)


def fetch_wheel(folder: Path) -> Path:
    """The wheel from the package index, in a folder. Raises InputError."""
    options = ("--no-deps", "--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64", f"--dest={folder}")
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *options, PACKAGE], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"pip cannot fetch {PACKAGE} ({first_line(done.stderr)}): name its wheel for Python 3.11 with --wheel.")
    return next(folder.glob("*.whl"))


def read_network(wheel: Path) -> bytes:
    """The .tflite file in a wheel whose checksum is the pinned one. Raises InputError."""
    if (found := file_sha256(wheel)) != SHA256:
        raise InputError(f"{wheel} has the checksum {found[:10]}… instead of {SHA256[:10]}…: name the wheel of {PACKAGE} for Python 3.11.")
    with ZipFile(wheel) as archive:
        return archive.read(MEMBER)


def read_constants(content: bytes) -> dict[str, np.ndarray]:
    """The weights of a .tflite file by name: "conv2d_1/Kernel", "depthwise_conv2d_1/Bias", "p_re_lu_1/Alpha". Raises InputError."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise InputError("ai-edge-litert is not installed: run ./setup_env.sh --with-speech.") from None
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    halves = [entry for entry in interpreter.get_tensor_details() if entry["dtype"] is np.float16]
    return {entry["name"]: interpreter.get_tensor(entry["index"]) for entry in halves}


def to_state_dict(constants: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The weights under the names of `FaceMesh`: its layers of each kind come in the order of the numbers in the file."""
    layers = sorted({name.split("/")[0] for name in constants}, key=lambda name: int(re.findall(r"\d+", name)[-1]))
    with torch.device("meta"):
        network = FaceMesh()
    weights: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.PReLU):
            continue
        kind = "p_re_lu" if isinstance(module, nn.PReLU) else "conv2d" if module.groups == 1 else "depthwise_conv2d"
        layer = layers.pop(next(index for index, found in enumerate(layers) if re.fullmatch(rf"{kind}_\d+", found)))
        if kind == "p_re_lu":
            weights[f"{name}.weight"] = torch.from_numpy(constants[f"{layer}/Alpha"].ravel())
            continue
        kernel = torch.from_numpy(constants[f"{layer}/Kernel"])  # out h w in; of a depthwise one 1 h w out
        weights[f"{name}.weight"] = kernel.permute((0, 3, 1, 2) if module.groups == 1 else (3, 0, 1, 2))
        weights[f"{name}.bias"] = torch.from_numpy(constants[f"{layer}/Bias"])
    return weights


def work(parsed: argparse.Namespace) -> None:
    """Fetch, convert, write, read back."""
    with TemporaryDirectory() as folder:
        content = read_network(parsed.wheel or fetch_wheel(Path(folder)))
    write_weights(parsed.output, to_state_dict(read_constants(content)), torch.float16)
    load_face_mesh(parsed.output)
    logger.info("%s: %.1f MB", parsed.output, parsed.output.stat().st_size / 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    parsed = parse_arguments(arguments)
    return run_command(lambda: work(parsed), "latentsync", "the same command starts anew.")


if __name__ == "__main__":
    sys.exit(main())
