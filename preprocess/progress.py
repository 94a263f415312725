"""What a person sees while a pipeline runs: clips and hours an hour, kept and rejected at each step, use of the processors."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from preprocess.stage import Outcome

_EVERY = 1.0  # seconds between two lines in a terminal
_EVERY_LOG = 60.0  # ... and in a file
_GPU_EVERY = 15.0  # seconds between two questions to the driver
_HOUR = 3600.0


class Progress:
    """A line that tells how far a run is.

    Args:
        steps: names in order.
        shown: whether anything is written.
    """

    def __init__(self, steps: Sequence[str], shown: bool) -> None:
        self.raw_files = 0  # found so far
        self.works = 0  # clips that a step was through with, in this run
        self.raw_seconds = 0.0  # of video that went into the first step, in this run
        self._counts = {name: [0, 0] for name in steps}  # kept, rejected
        self._start = time.monotonic()
        self._shown_at = self._gpu_at = 0.0
        self._gpu = ""
        self._meter = CpuMeter()
        self._every = _EVERY if sys.stderr.isatty() else _EVERY_LOG
        self._bar = tqdm(unit="clip", disable=not shown, miniters=1, mininterval=self._every, bar_format="{desc}")

    def count(self, step: str, kept: int, rejected: int, outcome: Outcome, first: bool) -> None:
        """A step is through with a clip."""
        self.works += 1
        self._counts[step][0] += kept
        self._counts[step][1] += rejected
        if first:
            self.raw_seconds += sum(_duration(result.facts.get("duration")) for result in outcome)

    def show(self) -> None:
        """Write the line, if it is time."""
        now = time.monotonic()
        if self._bar.disable or now - self._shown_at < self._every:
            return
        self._shown_at = now
        if now - self._gpu_at > _GPU_EVERY:
            self._gpu, self._gpu_at = gpu_use(), now
        self._bar.set_description_str(self.line())

    def line(self) -> str:
        """How far the run is, in one line."""
        counts = " ".join(f"{name} {kept}/{rejected}" for name, (kept, rejected) in self._counts.items() if kept or rejected)
        idle = self.cpu_idle()
        parts = [
            f"{self.raw_files} files, {self.works} works",
            f"{self.works / max(self.seconds(), 1e-9):.2f} clips/s",
            f"{self.raw_seconds / max(self.seconds(), 1e-9):.2f} h video/h",
            *([f"CPU {100 - 100 * idle:.0f} %"] if idle is not None else []),
            *([self._gpu] if self._gpu else []),
            f"kept/rejected: {counts or 'none yet'}",
        ]
        return " | ".join(parts)

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._start

    def cpu_idle(self) -> float | None:
        """Share of the time since the run began in which a processor had nothing to do; None where the system does not tell."""
        return self._meter.idle()

    def raw_hours(self) -> float:
        """Hours of video that went into the first step in this run."""
        return self.raw_seconds / _HOUR

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()


def _duration(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


class CpuMeter:
    """How busy the processors of this machine have been since this was made."""

    def __init__(self) -> None:
        self._start = self._times()

    def idle(self) -> float | None:
        """Share of the time, 0 to 1; None where the system does not tell."""
        now = self._times()
        if now is None or self._start is None or sum(now) <= sum(self._start):
            return None
        spent = [later - sooner for later, sooner in zip(now, self._start, strict=True)]
        return (spent[3] + spent[4]) / sum(spent)  # idle, and waiting for a disk

    @staticmethod
    def _times() -> list[int] | None:
        """user nice system idle iowait irq softirq steal, in ticks, of all processors together (Linux)."""
        with contextlib.suppress(OSError, ValueError), Path("/proc/stat").open(encoding="ascii") as file:
            return [int(word) for word in file.readline().split()[1:9]]
        return None


def gpu_use() -> str:
    """How busy the GPUs of this machine are, as their driver tells: "GPU 87 91 %"; "" where there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or shutil.which("nvidia-smi") is None:
        return ""
    question = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"GPU {' '.join(answer.stdout.split())} %"
