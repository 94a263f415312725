"""Fetch the weight files that are missing, and say of each that cannot be had what it is for, where to get it and where to put it.

    python -m scripts.download_weights [--versions 1.6 1.5 1.0] [--names unet-1.6 vae ...] [--training]

Without options the newest denoiser and what every inference needs are fetched. Files that exist, in the folder of weight files or in the
cache of huggingface_hub, are left alone. Without a connection the command ends after one short attempt. The exit code is always 0, since
the project works without these files, as far as it can.
"""

import argparse
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, hf_hub_download

from latentsync.weights import CHECKPOINTS, VERSIONS, WEIGHTS, WeightFile, check_sha256, missing_weights

ROOT = Path(__file__).resolve().parent.parent
CONNECT_TIMEOUT = 5  # seconds until a silent server counts as none
ON_REQUEST = {"whisper-small"}  # fetched only when named: no published network needs it
PARTIAL = ".partial"  # folder of unfinished downloads, inside the folder of weight files


def reachable(address: str) -> bool:
    """Whether a server answers at all, with whatever answer."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=CONNECT_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def fetch(weight: WeightFile, checkpoints: Path) -> None:
    """Download one file; it appears under its name only when it is whole and its checksum is right."""
    partial = checkpoints / PARTIAL / weight.path.name
    if weight.repository is None:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(weight.source, timeout=CONNECT_TIMEOUT) as response, partial.open("wb") as file:
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
        if expected is not None and partial.stat().st_size != int(expected):
            raise OSError(f"the connection broke after {partial.stat().st_size} of {expected} bytes")
    else:
        folder = checkpoints / PARTIAL / weight.repository.replace("/", "--")  # keeps what an interrupted download had
        partial = Path(hf_hub_download(weight.repository, weight.source, local_dir=folder, etag_timeout=CONNECT_TIMEOUT))
    check_sha256(partial, weight.sha256)
    target = checkpoints / weight.path
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(target)


def download(names: Sequence[str], checkpoints: Path) -> None:
    """Fetch the named files one after another; a failure is told and does not stop the others, unless the connection is gone."""
    failed = False
    for name in names:
        weight = WEIGHTS[name]
        print(f"Fetching {checkpoints / weight.path} ...", flush=True)
        try:
            fetch(weight, checkpoints)
        except Exception as error:  # noqa: BLE001 - the one place where a batch goes on, whatever the libraries below raise
            failed = True
            print(f"  not fetched: {str(error).splitlines()[0] if str(error) else type(error).__name__}", flush=True)
            if not reachable(constants.ENDPOINT):
                break
    if not failed:
        shutil.rmtree(checkpoints / PARTIAL, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what is asked for and not there, and say what is left; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.download_weights", description="Download missing weight files, or print where to get them."
    )
    parser.add_argument(
        "--versions", nargs="+", choices=VERSIONS, default=VERSIONS[:1], help=f"versions of the denoiser (default: {VERSIONS[0]})"
    )
    parser.add_argument("--names", nargs="+", choices=WEIGHTS, metavar="NAME", help=f"only these files: {', '.join(WEIGHTS)}")
    parser.add_argument("--training", action="store_true", help="also files for training, data processing and evaluation")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / CHECKPOINTS, help="folder of weight files (default: checkpoints/)")
    args = parser.parse_args(arguments)
    versions = VERSIONS if args.names else args.versions
    missing = missing_weights(args.checkpoints, versions)
    asked = args.names or [name for name, weight in WEIGHTS.items() if not weight.training and name not in ON_REQUEST]
    wanted = [name for name in missing if name in asked or (args.training and WEIGHTS[name].training)]
    if wanted:
        if reachable(constants.ENDPOINT):
            download(wanted, args.checkpoints)
        else:
            print(f"No connection to {constants.ENDPOINT}: nothing was downloaded.")
    missing = missing_weights(args.checkpoints, versions)
    left = [missing[name] for name in wanted if name in missing]
    print("\n".join(["Missing files:", *left]) if left else "No weight file is missing.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
