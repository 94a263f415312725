"""The table of metrics: a new one is a class in a file beside this one, and an entry here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eval.config import MeasuresConfig
from eval.metrics.base import Metric, SetMetric
from eval.metrics.distribution import Fid, Fvd, load_i3d, load_inception
from eval.metrics.image import IDENTITY, HyperIqa, Identity, Jitter, Lpips, Psnr, Ssim, load_identity
from eval.metrics.lips import Lmd, PointFinder, Silence, build_points
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
    "landmark_network": "measures.landmark_network names a landmark network of this project",
}


class NeededFile(NamedTuple):
    """A file that a metric is loaded from."""

    path: Path | None  # None: it has to be named
    origin: str  # where it comes from, or how it is named

    @property
    def missing(self) -> str:
        """What is missing, and what to do; empty where the file is there."""
        if self.path is None:
            return f"it has no file unless {self.origin}."
        return "" if self.path.is_file() else f"{self.path} is not there: put it there, from {self.origin}."


@dataclass(frozen=True)
class MetricSetup:
    """What metrics are built from."""

    settings: MeasuresConfig  # which metrics, and files that are named
    device: torch.device  # these two as of the model under test
    detector: str
    mask: str  # which part of a face that model generates
    checkpoints: Path  # folder of weight files

    @cached_property
    def points(self) -> PointFinder:
        """The finder of mouth landmarks, one for all metrics. Raises WeightsError."""
        return build_points(self.checkpoints, self.settings.landmark_network, self.device)

    @property
    def has_landmarks(self) -> bool:
        """Whether face-alignment's files are there."""
        return not any(self.file(name).missing for name in LANDMARKS)

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
        names = LANDMARKS if self.has_landmarks else ("landmark_network",) if self.settings.landmark_network is not None else ()
        return [self.file(part) for part in names or (LANDMARKS if name == "lips" else ())]

    def load(self, name: str, load: Callable[..., Any]) -> Any:
        """The network of a file that is there, on the device."""
        return load(self.file(name).path).to(self.device)


class MetricEntry(NamedTuple):
    """A metric that could be built."""

    build: Callable[[MetricSetup], Metric]
    files: Sequence[str] = ()  # names for `MetricSetup.files`


METRICS = {  # in the order of tables
    "sync": MetricEntry(lambda setup: load_sync_confidence(setup.checkpoints, setup.device), SYNC_WEIGHTS),
    "stable_sync": MetricEntry(
        lambda setup: load_stable_sync(
            setup.settings.syncnet_config, setup.settings.syncnet, setup.checkpoints, setup.device, setup.detector
        ),
        ("syncnet",),
    ),
    "ssim": MetricEntry(lambda setup: Ssim()),
    "psnr": MetricEntry(lambda setup: Psnr()),
    "lpips": MetricEntry(lambda setup: Lpips(setup.load("vgg16", load_lpips), setup.device), ("vgg16",)),
    "lmd": MetricEntry(lambda setup: Lmd(setup.points), ("points",)),
    "silence": MetricEntry(lambda setup: Silence(setup.points), ("lips",)),
    "seam": MetricEntry(lambda setup: Seam(setup.mask)),
    "jitter": MetricEntry(lambda setup: Jitter()),
    "identity": MetricEntry(
        lambda setup: Identity(setup.load("identity", load_identity), setup.settings.identity.name, setup.device), ("identity",)
    ),
    "hyperiqa": MetricEntry(lambda setup: HyperIqa(setup.load("hyperiqa", load_hyperiqa)), ("hyperiqa",)),
    "fvd": MetricEntry(lambda setup: Fvd(setup.load("i3d", load_i3d), "one", setup.device), ("i3d",)),
    "fvd_all": MetricEntry(lambda setup: Fvd(setup.load("i3d", load_i3d), "all", setup.device), ("i3d",)),
    "fid": MetricEntry(lambda setup: Fid(setup.load("inception", load_inception), 1, setup.device), ("inception",)),
}


@dataclass(frozen=True)
class LoadedMetrics:
    """What can be measured here."""

    metrics: list[Metric] = field(default_factory=list)  # those of sets of videos last
    missing: dict[str, str] = field(default_factory=dict)  # metric -> which file, where it belongs, where it comes from
    weights: dict[str, dict[str, str]] = field(default_factory=dict)  # metric -> file -> SHA-256
    stand_ins: list[str] = field(default_factory=list)  # what a reader must not miss about the networks that measure


def load_metrics(
    settings: MeasuresConfig, device: str = "auto", detector: str = "auto", mask: str = "mask", checkpoints: Path = ROOT / CHECKPOINTS
) -> LoadedMetrics:
    """The metrics that are asked for and have their files. ConfigError: an unknown one; WeightsError: damaged files; InputError: none."""
    setup, loaded = MetricSetup(settings, resolve_device(device), detector, mask, checkpoints), LoadedMetrics()
    if unknown := [name for name in settings.names if name not in METRICS]:
        raise ConfigError(f"'measures.names' holds {unknown[0]!r}, but the measures are {', '.join(METRICS)}")
    for name in settings.names or METRICS:
        files = [file for part in METRICS[name].files for file in setup.files(part)]
        if missing := " ".join(filter(None, (file.missing for file in files))):
            loaded.missing[name] = missing
            continue
        metric = METRICS[name].build(setup)
        loaded.metrics.append(metric)
        loaded.stand_ins.extend([metric.warning] if metric.warning else [])
        loaded.weights[name] = {file.path.name: file_sha256(file.path) for file in files if file.path is not None}
    loaded.metrics.sort(key=lambda metric: isinstance(metric, SetMetric))
    if {"lmd", "silence"} & loaded.weights.keys() and not setup.has_landmarks:
        loaded.stand_ins.append(
            f"lmd and silence: landmarks are {setup.points.name}, not those of face-alignment (2DFAN-4) that such figures usually rest on."
        )
    if not loaded.metrics:
        raise InputError(f"Nothing can be measured: {' '.join(loaded.missing.values())}")
    return loaded
