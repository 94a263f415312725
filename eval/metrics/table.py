"""The table of metrics: a new one is a class in a file beside this one, and an entry here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from eval.config import MeasuresConfig
from eval.metrics.base import Metric, SetMetric
from eval.metrics.distribution import Fid, Fvd, load_i3d, load_inception
from eval.metrics.image import IDENTITY, HyperIqa, Identity, Jitter, Lpips, Psnr, Ssim, load_identity
from eval.metrics.lips import CachedPoints, Lmd, Silence, build_points
from eval.metrics.seam import Seam
from eval.metrics.sync import SYNC_WEIGHTS, load_stable_sync, load_sync_confidence
from latentsync.errors import ConfigError, InputError
from latentsync.losses.lpips import load_lpips
from latentsync.pipelines.build import ROOT, resolve_device
from latentsync.third_party.hyperiqa import load_hyperiqa
from latentsync.weights import CHECKPOINTS, WEIGHTS, file_sha256, weights_path

LANDMARKS = ("s3fd", "2dfan4")  # face-alignment's files
NAMED_ONLY = {  # files that lie nowhere by themselves -> how they are named
    "syncnet": "measures.syncnet and measures.syncnet_config name a SyncNet of this project",
    "identity": f"measures.identity names {IDENTITY}",
    "reader": "measures.reader names a landmark network of this project",
}


class NeededFile(NamedTuple):
    """A file that a metric is loaded from."""

    path: Path | None  # None: it has to be named
    origin: str  # where it comes from, or how it is named

    @property
    def is_there(self) -> bool:
        """Whether it can be loaded."""
        return self.path is not None and self.path.is_file()

    def __str__(self) -> str:
        """What is missing, and what to do."""
        if self.path is None:
            return f"it has no file unless {self.origin}."
        return f"{self.path} is not there: put it there, from {self.origin}."


@dataclass(frozen=True)
class MetricSetup:
    """What metrics are built from.

    Attributes:
        settings: which metrics, and files that are named.
        device, detector: as of the model under test.
        mask: which part of a face that model generates.
        checkpoints: folder of weight files.
    """

    settings: MeasuresConfig
    device: torch.device
    detector: str
    mask: str
    checkpoints: Path

    @cached_property
    def points(self) -> CachedPoints:
        """The finder of mouth landmarks, one for all metrics. Raises WeightsError."""
        return build_points(self.checkpoints, self.settings.reader, self.device)

    @property
    def has_landmarks(self) -> bool:
        """Whether face-alignment's files are there."""
        return all(self.file(name).is_there for name in LANDMARKS)

    def file(self, name: str) -> NeededFile:
        """A file of the table of weights, or one that the configuration names."""
        named = getattr(self.settings, name, None)
        if name in NAMED_ONLY:
            return NeededFile(named, NAMED_ONLY[name])
        return NeededFile(named or weights_path(name, self.checkpoints), WEIGHTS[name].origin)

    def files(self, name: str) -> list[NeededFile]:
        """One file, or those behind "points" (what `points` takes, none for MTCNN) and "lips" (the same, but MTCNN has no lips)."""
        if name not in ("points", "lips"):
            return [self.file(name)]
        names = LANDMARKS if self.has_landmarks else ("reader",) if self.settings.reader is not None else ()
        return [self.file(part) for part in names or (LANDMARKS if name == "lips" else ())]

    def path(self, name: str) -> Path:
        """Where a file is that is there."""
        path = self.file(name).path
        assert path is not None
        return path


class MetricEntry(NamedTuple):
    """A metric that could be built."""

    name: str
    build: Callable[[MetricSetup], Metric | SetMetric]
    files: Sequence[str] = ()  # names for `MetricSetup.files`


METRICS = (  # in the order of tables
    MetricEntry("sync", lambda setup: load_sync_confidence(setup.checkpoints, setup.device), SYNC_WEIGHTS),
    MetricEntry(
        "stable_sync",
        lambda setup: load_stable_sync(
            setup.settings.syncnet_config, setup.path("syncnet"), setup.checkpoints, setup.device, setup.detector
        ),
        ("syncnet",),
    ),
    MetricEntry("ssim", lambda setup: Ssim()),
    MetricEntry("psnr", lambda setup: Psnr()),
    MetricEntry("lpips", lambda setup: Lpips(load_lpips(setup.path("vgg16")).to(setup.device), setup.device), ("vgg16",)),
    MetricEntry("lmd", lambda setup: Lmd(setup.points), ("points",)),
    MetricEntry("silence", lambda setup: Silence(setup.points), ("lips",)),
    MetricEntry("seam", lambda setup: Seam(setup.mask)),
    MetricEntry("jitter", lambda setup: Jitter()),
    MetricEntry(
        "identity",
        lambda setup: Identity(load_identity(setup.path("identity"), setup.device), setup.path("identity").name, setup.device),
        ("identity",),
    ),
    MetricEntry("hyperiqa", lambda setup: HyperIqa(load_hyperiqa(setup.path("hyperiqa")).to(setup.device)), ("hyperiqa",)),
    MetricEntry("fvd", lambda setup: Fvd(load_i3d(setup.path("i3d"), setup.device), "one", setup.device), ("i3d",)),
    MetricEntry("fvd_all", lambda setup: Fvd(load_i3d(setup.path("i3d"), setup.device), "all", setup.device), ("i3d",)),
    MetricEntry("fid", lambda setup: Fid(load_inception(setup.path("inception"), setup.device), 1, setup.device), ("inception",)),
)


class MissingMetric(NamedTuple):
    """A metric that cannot take part."""

    measure: str
    why: str  # a sentence: which file, where it belongs, where it comes from


@dataclass(frozen=True)
class LoadedMetrics:
    """What can be measured here.

    Attributes:
        weights: metric -> file -> SHA-256.
        stand_ins: what a reader must not miss about the networks that measure.
    """

    metrics: list[Metric]
    sets: list[SetMetric]
    missing: list[MissingMetric]
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    stand_ins: list[str] = field(default_factory=list)


def load_metrics(
    settings: MeasuresConfig, device: str = "auto", detector: str = "auto", mask: str = "mask", checkpoints: Path = ROOT / CHECKPOINTS
) -> LoadedMetrics:
    """The metrics that are asked for and whose files are there; for the arguments see `MetricSetup`.

    Raises:
        ConfigError: a metric that is asked for does not exist.
        WeightsError: a file is there and cannot be used.
        InputError: none of those that are asked for has its files.
    """
    setup, entries = MetricSetup(settings, resolve_device(device), detector, mask, checkpoints), {entry.name: entry for entry in METRICS}
    if unknown := [name for name in settings.names if name not in entries]:
        raise ConfigError(f"'measures.names' holds {unknown[0]!r}, but the measures are {', '.join(entries)}")
    found = LoadedMetrics([], [], [])
    for name in settings.names or entries:
        files = [file for part in entries[name].files for file in setup.files(part)]
        if lacking := [str(file) for file in files if not file.is_there]:
            found.missing.append(MissingMetric(name, " ".join(lacking)))
            continue
        metric = entries[name].build(setup)
        if isinstance(metric, SetMetric):
            found.sets.append(metric)
        else:
            found.metrics.append(metric)
            found.stand_ins.extend([metric.warning] if metric.warning else [])
        found.weights[name] = {file.path.name: file_sha256(file.path) for file in files if file.path is not None}
    if {"lmd", "silence"} & found.weights.keys() and not setup.has_landmarks:
        found.stand_ins.append(
            f"lmd and silence: landmarks are {setup.points.name}, not those of face-alignment (2DFAN-4) that such figures usually rest on."
        )
    if not found.metrics and not found.sets:
        raise InputError(f"Nothing can be measured: {' '.join(entry.why for entry in found.missing)}")
    return found
