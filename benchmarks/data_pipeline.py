"""The data pipeline on this machine: hours of video an hour at each step and in all, idle processors, and memory by the number of clips.

    python -m benchmarks.data_pipeline speed RAW_DIR [--runs local:1 local:2 ray:2] [--copies 1]
    python -m benchmarks.data_pipeline memory CLIP [--clips 100 1000]

`speed` takes a folder of raw video through all steps, once for each run, EXECUTOR:WORKERS. Steps 7 and 8 have random weights of full
size; step 7 finds one face in every picture and no threshold applies, so that every clip goes to the end. `memory` copies one short clip
under many names and skips these steps. Memory is the largest sum of what the processes of a run hold (shared pages counted once).
"""

import argparse
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import nn

from benchmarks.write_random_checkpoint import random_weights
from latentsync.third_party.hyperiqa import HyperNet
from latentsync.third_party.s3fd import S3FD
from latentsync.third_party.syncnet_v2 import SyncNetV2
from latentsync.weights import WEIGHTS

POLL_SECONDS = 0.5  # between two readings of the memory
SHORTEST = 1.0  # seconds of the pieces of `memory`, whose clip is short
SURE = 10.0  # logit of a face where one shall be detected, and of none elsewhere
HEADER = (
    "| run | files | video h | seconds | ... of work | files/s | video h / h | processors idle | memory, GB |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
NO_THRESHOLD = ("--sync_conf_threshold", "-1000", "--max_offset", "15", "--quality_threshold", "-1000")


def write_stand_ins(folder: Path) -> None:
    """Random weights of steps 7 and 8, in a folder like checkpoints/."""
    networks = {"sfd_face": S3FD(), "syncnet_v2": SyncNetV2(), "hyperiqa": HyperNet()}
    for name, network in networks.items():
        network.load_state_dict(random_weights(network.state_dict(), 0))
        if isinstance(network, S3FD):
            detect_one_face(network)
        path = folder / WEIGHTS[name].path
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)


def detect_one_face(detector: S3FD) -> None:
    """Bias the coarsest map, whose prior box fills an aligned face, to a face everywhere, and all others to none."""
    for parameter in (*detector.loc.parameters(), *detector.conf.parameters()):
        nn.init.zeros_(parameter)
    with torch.no_grad():
        for number, score in enumerate(detector.conf, 1):
            score.bias[-1 if number == len(detector.conf) else 0] = SURE


def measure(name: str, raw: Path, output: Path, options: Sequence[str]) -> tuple[str, str]:
    """Run the command; a row of the table, and the table that it prints. CalledProcessError where it fails."""
    command = [sys.executable, "-m", "preprocess.data_processing_pipeline", "--input_dir", str(raw), "--output_dir", str(output), "--quiet"]
    begin, peak = time.perf_counter(), 0.0
    printed, log = output.parent / "printed.txt", output.parent / "log.txt"
    with printed.open("wb") as out, log.open("wb") as err, subprocess.Popen([*command, *options], stdout=out, stderr=err) as process:
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    seconds = time.perf_counter() - begin
    if process.returncode:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    with contextlib.closing(sqlite3.connect(output / "manifest.sqlite")) as manifest:
        query = "SELECT seconds, cpu_idle, raw_hours, (SELECT count(*) FROM clips WHERE parent IS NULL) FROM runs ORDER BY id DESC"
        work, idle, hours, files = manifest.execute(query).fetchone()
    rates = f"{work:.0f} | {files / work:.2f} | {3600 * hours / work:.2f}"
    return f"| {name} | {files} | {hours:.3f} | {seconds:.0f} | {rates} | {100 * idle:.0f} % | {peak / 1e9:.2f} |", printed.read_text()


def tree_memory(pid: int) -> float:
    """Bytes that a process and all below it hold, shared pages counted once."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


def speed(arguments: argparse.Namespace) -> None:
    rows = []
    with TemporaryDirectory(prefix="latentsync-", dir=arguments.scratch) as scratch:
        weights, raw = Path(scratch) / "checkpoints", Path(scratch) / "raw"
        write_stand_ins(weights)
        for number in range(arguments.copies):
            shutil.copytree(arguments.raw, raw / str(number))
        for name in arguments.runs:
            executor, _, workers = name.rpartition(":")
            (Path(scratch) / name).mkdir()
            options = ("--executor", executor, "--workers", workers, "--gpu_workers", workers, "--checkpoints", str(weights))
            row, steps = measure(name, raw, Path(scratch) / name / "out", [*options, *NO_THRESHOLD])
            shutil.rmtree(Path(scratch) / name)
            print(f"{name}\n{steps}\n", flush=True)
            rows.append(row)
    print("\n".join([HEADER, *rows]))


def memory(arguments: argparse.Namespace) -> None:
    print(HEADER)
    for count in arguments.clips:
        with TemporaryDirectory(prefix="latentsync-", dir=arguments.scratch) as scratch:
            raw = Path(scratch) / "raw"
            raw.mkdir()
            for number in range(count):
                shutil.copyfile(arguments.clip, raw / f"clip{number:05d}{arguments.clip.suffix}")
            lengths = ("--min_seconds", str(SHORTEST), "--max_seconds", str(2 * SHORTEST))
            options = ("--skip", "av_sync,visual_quality", "--workers", str(arguments.workers), "--resolution", "64", *lengths)
            print(measure(str(count), raw, Path(scratch) / "out", options)[0], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_pipeline", description="How fast and how large the data pipeline is.")
    parser.add_argument("--scratch", type=Path, help="folder for what is written and removed (default: the system's)")
    commands = parser.add_subparsers(required=True)
    fast = commands.add_parser("speed", help="hours of video an hour, by step and in all")
    fast.add_argument("raw", type=Path, help="folder of raw video")
    fast.add_argument("--runs", nargs="+", default=["local:1", "local:2", "ray:2"], metavar="EXECUTOR:WORKERS")
    fast.add_argument("--copies", type=int, default=1, help="how often the folder goes in (default %(default)s)")
    fast.set_defaults(do=speed)
    large = commands.add_parser("memory", help="memory by the number of clips")
    large.add_argument("clip", type=Path, help="a clip of at least a second with a face and sound")
    large.add_argument("--clips", type=int, nargs="+", default=[100, 1000], help="how many (default 100 1000)")
    large.add_argument("--workers", type=int, default=2)
    large.set_defaults(do=memory)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
