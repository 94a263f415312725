"""What a job did: frames, spans, what was skipped and why, times."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from time import perf_counter

import torch

from latentsync.faces.plan import FacePlan, SkippedRun

LONGEST_LIST = 5  # runs named in a line for a person; the report holds all of them


@dataclass(frozen=True)
class SpanReport:
    """A run of source frames (half open) in which one face was given new words."""

    start: int
    stop: int
    shot: int


@dataclass(frozen=True)
class LipsyncResult:
    """The outcome of one job.

    Attributes:
        frames: frames in the output; `generated` of them have a new mouth.
        spans, skipped: in frames of the source at the output's frame rate, half open.
        seconds: wall time of each stage; stages overlap, so they need not add up to the total.
        peak_device_bytes: most memory held on the GPU at once, None on other devices.
    """

    video_path: Path
    audio_path: Path
    output_path: Path
    width: int
    height: int
    fps: float
    frames: int
    source_frames: int
    generated: int
    duration: float
    seed: int
    batch_clips: int
    spans: tuple[SpanReport, ...]
    skipped: tuple[SkippedRun, ...]
    warnings: tuple[str, ...]
    seconds: dict[str, float]
    peak_device_bytes: int | None

    def as_dict(self) -> dict:
        """For JSON: paths as text, the rest as plain numbers, lists and dictionaries."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


@dataclass
class StageTimer:
    """Wall time of named stages, in seconds; on a GPU a stage ends when the device has finished it."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            if self.device.type in ("cuda", "mps"):
                getattr(torch, self.device.type).synchronize()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start


def spans_of(plan: FacePlan) -> tuple[SpanReport, ...]:
    """The spans of a plan without their matrices."""
    return tuple(SpanReport(span.start, span.stop, span.shot) for span in plan.spans)


def describe_skipped(plan: FacePlan, fps: Fraction) -> str:
    """The runs that stay untouched, in one line: "frames 30-49 (1.2-2.0 s): no face"; empty when there are none."""
    return _listed([f"{describe_run(run.start, run.stop, fps)}: {run.reason}" for run in plan.skipped])


def describe_covered(plan: FacePlan, fps: Fraction) -> str:
    """The runs in which something may cover the mouth, in one line: "frames 20-45 (0.8-1.8 s)"; empty when there are none."""
    return describe_damage(plan.covered, fps)


def describe_damage(damaged: Sequence[tuple[int, int]], fps: Fraction) -> str:
    """Runs of frames (half open) in one line: "frames 30-49 (1.2-2.0 s)"."""
    return _listed([describe_run(start, stop, fps) for start, stop in damaged])


def describe_run(start: int, stop: int, fps: Fraction) -> str:
    """A run of frames (half open) for a person, who counts its last frame."""
    return f"frames {start}-{stop - 1} ({float(start / fps):.1f}-{float(stop / fps):.1f} s)"


def _listed(runs: list[str]) -> str:
    more = len(runs) - LONGEST_LIST
    return "; ".join([*runs[:LONGEST_LIST], f"and {more} more runs"] if more > 0 else runs)
