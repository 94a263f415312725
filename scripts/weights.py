"""The weight files of this project: `python -m scripts.weights list|check|download|licences|page`."""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from latentsync.cli import run_command
from latentsync.errors import LatentSyncError, WeightsError
from latentsync.weights import (
    CHECKPOINTS,
    FLAT_UNET,
    VERSIONS,
    WEIGHTS,
    WeightFile,
    check_sha256,
    find_weights,
    is_whole_archive,
    read_checkpoint,
)
from scripts import download_weights
from scripts.download_weights import ON_REQUEST

ROOT = Path(__file__).resolve().parents[1]
ASSUMED = "assumed: the file does not say its version"
TORCHSCRIPT = {"i3d", "inception"}
PAGE = """# Weights

This page is written by `python -m scripts.weights page`, from the table in `latentsync/weights.py`.

The project runs without any of these files: `./inference.sh` then uses the small [embedded model](embedded.md). With the files of one
published version it uses that, the newest first. `./setup_env.sh --check` says what is there, and which model this machine has memory for.

    python -m scripts.download_weights                            # version 1.6 and what inference needs, {inference}
    python -m scripts.download_weights --versions 1.5             # or 1.0; several may lie side by side
    python -m scripts.download_weights --training                 # also the last two tables
    python -m scripts.download_weights --mirror ADDRESS           # a server with the layout of Hugging Face in place of it
    python -m scripts.download_weights --from_dir FOLDER          # no network: files that somebody carried here
    python -m scripts.weights check                               # checksums, and whether each file fits its network

An interrupted download goes on where it stopped. A file appears under its name when it is whole and its checksum is right.
`./inference.sh` and `./setup_env.sh` try the first command once a day (`LATENTSYNC_DOWNLOAD=0`: never). Files in the Hugging Face cache
are found, too. A file may also lie where the published instructions put it: without the folder of its version. A denoiser there counts
as 1.6, or as 1.0 by its parameter names.

## Inference

One denoiser (`unet-...`), the audio encoder `whisper-tiny`, and the autoencoder (`vae-config`, `vae`).

{tables[0]}

## Training

{tables[1]}

## Data processing and evaluation

{tables[2]}

The licence is that of the file, as its authors state it; `python -m scripts.weights licences` prints them."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(prog="python -m scripts.weights", description="List, check and download the weight files.")
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "list": "all files: found or not, size, path, purpose",
        "check": "check the checksum (if known) of each file and whether it loads into its network; exit code 1 if one does not, "
        "or if a named file is missing",
        "licences": "licence and origin of each file",
        "page": "docs/weights.md, made from the table of files",
    }
    for name, words in about.items():
        command = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        command.add_argument("names", nargs="*", metavar="NAME", help=f"only these files: {', '.join(WEIGHTS)}")
        text = "folder of weight files (default: checkpoints/ of the project)"
        command.add_argument("--checkpoints", type=Path, default=ROOT / CHECKPOINTS, help=text)
    commands.add_parser("download", help="download missing files, or print where to get them (same as scripts.download_weights)")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.names if name not in WEIGHTS]
    if unknown:
        parser.error(f"there is no weight file {unknown[0]!r}: the files are {', '.join(WEIGHTS)}")
    return parsed


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def list_files(files: Mapping[str, WeightFile], checkpoints: Path) -> str:
    """The table of what is there."""
    rows = [("name", "there", "size", "place", "for")]
    for name, weight in files.items():
        path = find_weights(name, checkpoints)
        there = "yes" if path else "no" if weight.required else "no (optional)"
        size = f"{path.stat().st_size / 1e6:.1f} MB" if path else "-"
        note = f" ({ASSUMED})" if path == checkpoints / FLAT_UNET and name == f"unet-{VERSIONS[0]}" else ""
        rows.append((name, there, size, str(path or checkpoints / weight.path), weight.purpose + note))
    return in_columns(rows)


def weights_page() -> str:
    """docs/weights.md: commands, and which file goes where."""
    inference, training, evaluation = [], [], []
    for name, weight in WEIGHTS.items():
        group = inference if not weight.training else training if weight.purpose.startswith("training") else evaluation
        size = f"{weight.megabytes} MB" if weight.megabytes else "not stated"
        origin = f"`{weight.source}` of {weight.repository}" if weight.repository else f"[{weight.path.name}]({weight.source})"
        spare = f" (or `{weight.spare}`)" if weight.spare else ""
        group.append(f"| `{name}` | `{CHECKPOINTS / weight.path}` | {origin}{spare} | {size} | {weight.licence} | {weight.purpose} |")
    head = ["| name | place | from (repositories: Hugging Face) | size | licence | for |", "|---|---|---|---|---|---|"]
    fetched = sum(w.megabytes or 0 for n, w in WEIGHTS.items() if not w.training and n not in {*ON_REQUEST, "unet-1.5", "unet-1.0"})
    return PAGE.format(
        inference=f"{fetched / 1000:.1f} GB", tables=["\n".join([*head, *group]) for group in (inference, training, evaluation)]
    )


def check_files(files: Mapping[str, WeightFile], checkpoints: Path, wanted: Sequence[str]) -> int:
    """Print for each file whether it is right; the exit code is 1 where one is not, or one of the `wanted` is missing."""
    loaders, bad = network_loaders(), False
    for name, weight in files.items():
        path, load = find_weights(name, checkpoints), loaders.get(name, try_archive if name in TORCHSCRIPT else read_checkpoint)
        found = f"right ({'fits its network' if name in loaders else 'can be read'}{'' if weight.sha256 else ', no checksum is known'})"
        try:
            if path is None:
                found, bad = "missing", bad or name in wanted
            else:
                check_sha256(path, weight.sha256)
                load(path)
        except (LatentSyncError, OSError) as error:
            found, bad = str(error), True
        print(f"{name}: {found}", flush=True)
    return int(bad)


def network_loaders() -> Mapping[str, Callable[[Path], object]]:
    """Name of a file -> what loads it strictly into its network; files of other libraries, which are only read, are not in it."""
    from latentsync.config import VideoMAEConfig, load_config  # all is imported here, so that the other commands need not wait
    from latentsync.losses.lpips import load_lpips
    from latentsync.models.syncnet import load_syncnet
    from latentsync.models.unet_weights import map_unet
    from latentsync.models.vae import load_vae
    from latentsync.pipelines.build import CONFIGS
    from latentsync.third_party.hyperiqa import load_hyperiqa
    from latentsync.third_party.s3fd import load_s3fd
    from latentsync.third_party.syncnet_v2 import load_syncnet_v2
    from latentsync.third_party.videomae import load_videomae
    from latentsync.whisper.audio2feature import load_whisper_encoder

    def load_unet(version: str, path: Path) -> None:  # without reading the values: they stay mapped
        config = load_config(ROOT / "configs" / "unet" / CONFIGS[version]).model
        map_unet(config, path, f"it is not the denoiser of version {version}")

    return {
        **{f"unet-{version}": partial(load_unet, version) for version in VERSIONS},
        "whisper-tiny": load_whisper_encoder,
        "whisper-small": load_whisper_encoder,
        "vae-config": lambda path: path.read_bytes(),
        "vae": lambda path: load_vae(path.parent),
        "syncnet": partial(load_syncnet, ROOT / "configs" / "syncnet" / "syncnet_16_pixel_attn.yaml"),
        "vgg16": load_lpips,
        "videomae": partial(load_videomae, VideoMAEConfig()),
        "sfd_face": load_s3fd,
        "syncnet_v2": load_syncnet_v2,
        "hyperiqa": load_hyperiqa,
    }


def try_archive(path: Path) -> None:
    """Test whether a TorchScript program is whole; nothing in it is executed. Raises WeightsError."""
    if not is_whole_archive(path):
        raise WeightsError(f"{path} is no TorchScript program, or is cut short or damaged: delete it and download it again.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["download"]:
        return download_weights.main(arguments[1:])
    parsed = parse_arguments(arguments)
    files = {name: WEIGHTS[name] for name in parsed.names or WEIGHTS}
    if parsed.command == "page":
        print(weights_page())
        return 0
    if parsed.command == "check":
        return run_command(lambda: check_files(files, parsed.checkpoints, parsed.names), "latentsync", "nothing was changed.", quiet=True)
    licences = [("name", "licence", "origin"), *((name, weight.licence, weight.origin) for name, weight in files.items())]
    print(list_files(files, parsed.checkpoints) if parsed.command == "list" else in_columns(licences))
    return 0


if __name__ == "__main__":
    sys.exit(main())
