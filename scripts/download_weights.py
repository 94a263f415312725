"""Fetch the weight files that are missing, and say of each that cannot be had what it is for, where to get it and where to put it.

    python -m scripts.download_weights [--versions 1.6 1.5 1.0] [--names unet-1.6 vae ...] [--training]
                                       [--mirror ADDRESS] [--from_dir FOLDER]

Without options the newest denoiser and what every inference needs are fetched. Files that exist, in the folder of weight files or in the
cache of huggingface_hub, are left alone. An interrupted download goes on where it stopped when the command is run again. Without a
connection the command ends after one short attempt. The exit code is always 0, since the project works without these files, as far
as it can.
"""

import argparse
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from tqdm import tqdm

from latentsync.errors import first_line
from latentsync.weights import CHECKPOINTS, VERSIONS, WEIGHTS, WeightFile, check_sha256, find_weights, missing_weights

ROOT = Path(__file__).resolve().parent.parent
CONNECT_TIMEOUT = 5  # seconds until a silent server counts as none
READ_TIMEOUT = 30  # seconds without a byte until a connection counts as broken
TRIES = 5  # of one file, each from where the last one stopped
BLOCK = 1 << 20  # bytes that are written at once
ON_REQUEST = {"whisper-small"}  # fetched only when named: no published network needs it
PARTIAL = ".partial"  # folder of unfinished downloads, inside the folder of weight files
PARTIAL_CONTENT, RANGE_REFUSED = 206, 416  # HTTP status


def reachable(address: str) -> bool:
    """Whether a server answers at all, with whatever answer."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=CONNECT_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def fetch(weight: WeightFile, checkpoints: Path, endpoint: str | None = None) -> None:
    """Download one file; it appears under its name only when it is whole and its checksum is right.

    Args:
        weight: the file.
        checkpoints: folder of weight files.
        endpoint: address of a server with the layout of Hugging Face in place of it.
    """
    if weight.repository is None:
        partial, checksum = checkpoints / PARTIAL / weight.path.name, None
        partial.parent.mkdir(parents=True, exist_ok=True)
        fetch_address(weight.source, partial)
    else:
        folder = checkpoints / PARTIAL / weight.repository.replace("/", "--")  # keeps what an interrupted download had
        tag = get_hf_file_metadata(hf_hub_url(weight.repository, weight.source, endpoint=endpoint), timeout=CONNECT_TIMEOUT).etag
        checksum = tag if re.fullmatch("[0-9a-f]{64}", tag or "") else None  # of a large file the tag is its SHA-256
        how = {"local_dir": folder, "etag_timeout": CONNECT_TIMEOUT, "endpoint": endpoint}
        partial = Path(hf_hub_download(weight.repository, weight.source, **how))
    try:
        check_sha256(partial, weight.sha256 or checksum)
    except Exception:
        partial.unlink()  # else the next attempt would go on from it
        raise
    target = checkpoints / weight.path
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)


def fetch_address(address: str, partial: Path) -> None:
    """Download an address into a file that may hold its beginning already. Raises OSError where it is not whole after `TRIES`."""
    for left in reversed(range(TRIES)):
        try:
            if fetch_rest(address, partial):
                return
        except (OSError, HTTPException) as error:
            if not left or isinstance(error, urllib.error.HTTPError):
                raise OSError(first_line(error)) from error
        time.sleep(1 if left else 0)
    raise OSError(f"the connection broke {TRIES} times, last after {partial.stat().st_size} bytes: run this again to go on")


def fetch_rest(address: str, partial: Path) -> bool:
    """Append what a file lacks of an address, with a progress bar; whether it is whole now."""
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=READ_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == RANGE_REFUSED and error.headers.get("Content-Range") == f"bytes */{there}":
            return True
        if error.code == RANGE_REFUSED:
            partial.unlink()  # longer than the file: from another one
            return False
        raise
    with response:
        if getattr(response, "status", None) != PARTIAL_CONTENT:
            there = 0  # a server that sends all of it again
        length = response.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        bar = tqdm(desc=partial.name, initial=there, total=total, unit="B", unit_scale=True, mininterval=1)
        with partial.open("ab" if there else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        return total is None or partial.stat().st_size == total


def take_from(folder: Path, name: str, checkpoints: Path) -> None:
    """Copy a file of the table out of a folder in which it lies as here, or as in its repository. Raises WeightsError, OSError."""
    weight = WEIGHTS[name]
    repository = Path(weight.repository or ".")
    places = (folder / repository / weight.source, folder / repository.name / weight.source) if weight.repository else ()
    found = next((path for path in places if path.is_file()), find_weights(name, folder))
    if found is None:
        raise FileNotFoundError(f"it is not in {folder}: put it at {folder / weight.path}")
    check_sha256(found, weight.sha256)
    target, partial = checkpoints / weight.path, checkpoints / PARTIAL / weight.path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, partial)
    partial.replace(target)


def download(names: Sequence[str], checkpoints: Path, endpoint: str | None = None, folder: Path | None = None) -> None:
    """Fetch the named files one after another, out of a folder where one is given.

    A failure is told and does not stop the others, unless the connection is gone.
    """
    known = sum(WEIGHTS[name].megabytes or 0 for name in names)
    print(f"{len(names)} files, about {known / 1000:.1f} GB, into {checkpoints}; Ctrl-C stops, the same command goes on.", flush=True)
    failed = False
    for name in names:
        weight = WEIGHTS[name]
        size = f" ({weight.megabytes} MB)" if weight.megabytes else ""
        print(f"Fetching {checkpoints / weight.path}{size} ...", flush=True)
        try:
            if folder is not None:
                take_from(folder, name, checkpoints)
            else:
                fetch(weight, checkpoints, endpoint)
        except Exception as error:  # noqa: BLE001 - the one place where a batch goes on, whatever the libraries below raise
            failed = True
            print(f"  not fetched: {first_line(error)}", flush=True)
            if folder is None and not reachable(endpoint or constants.ENDPOINT):
                break
    if not failed:
        shutil.rmtree(checkpoints / PARTIAL, ignore_errors=True)


def lacks_space(names: Sequence[str], checkpoints: Path) -> str | None:
    """A sentence where the disk has no room for the files, else None."""
    place = next(path for path in (checkpoints, *checkpoints.resolve().parents) if path.exists())
    free, needed = shutil.disk_usage(place).free, sum(WEIGHTS[name].megabytes or 0 for name in names) * 1e6
    if free >= needed:
        return None
    return f"{needed / 1e9:.1f} GB are needed in {checkpoints} and {free / 1e9:.1f} GB are free: nothing was downloaded."


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.download_weights", description="Download missing weight files, or print where to get them."
    )
    parser.add_argument(
        "--versions", nargs="+", choices=VERSIONS, default=VERSIONS[:1], help=f"versions of the denoiser (default: {VERSIONS[0]})"
    )
    parser.add_argument("--names", nargs="+", choices=WEIGHTS, metavar="NAME", help=f"only these files: {', '.join(WEIGHTS)}")
    parser.add_argument("--training", action="store_true", help="also files for training, data processing and evaluation")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / CHECKPOINTS, help="folder of weight files (default: checkpoints/)")
    parser.add_argument(
        "--mirror", metavar="ADDRESS", help="a server with the layout of Hugging Face in place of it (default: $HF_ENDPOINT)"
    )
    parser.add_argument(
        "--from_dir", type=Path, metavar="FOLDER", help="take the files out of a folder, such as a disk from another machine; no network"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what is asked for and not there, and say what is left; the exit code."""
    args = parse_arguments(arguments)
    versions = VERSIONS if args.names else args.versions
    missing = missing_weights(args.checkpoints, versions)
    asked = args.names or [name for name, weight in WEIGHTS.items() if not weight.training and name not in ON_REQUEST]
    wanted = [name for name in missing if name in asked or (args.training and WEIGHTS[name].training)]
    if wanted:
        address = args.mirror or constants.ENDPOINT
        if full := lacks_space(wanted, args.checkpoints):
            print(full)
        elif args.from_dir is not None or reachable(address):
            download(wanted, args.checkpoints, args.mirror, args.from_dir)
        else:
            print(f"No connection to {address}: nothing was downloaded.")
    missing = missing_weights(args.checkpoints, versions)
    left = [missing[name] for name in wanted if name in missing]
    print("\n".join(["Missing files:", *left]) if left else "No weight file is missing.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
