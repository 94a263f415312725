"""The table of metrics: a new one is a class in a file beside this one, and an entry here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from eval.config import MeasuresConfig
from eval.metrics.base import Metric, SetMetric
from eval.metrics.distribution import Fid, Fvd, load_i3d, load_inception
from eval.metrics.image import IDENTITY, HyperIqa, Identity, Jitter, Lpips, Psnr, Ssim, load_identity
from eval.metrics.lips import Lips, Lmd, PointFinder, Silence, build_points
from eval.metrics.seam import Seam
from eval.metrics.sync import SYNC_WEIGHTS, load_stable_sync, load_sync_confidence
from latentsync.errors import ConfigError, InputError
from latentsync.losses.lpips import load_lpips
from latentsync.pipelines.build import ROOT, resolve_device
from latentsync.third_party.face_mesh import FACE_MESH
from latentsync.third_party.hyperiqa import load_hyperiqa
from latentsync.weights import CHECKPOINTS, WEIGHTS, file_sha256, weights_path

LANDMARKS = ("s3fd", "2dfan4")  # face-alignment's files
MESH_ORIGIN = "a fresh copy of the project, which it is a part of"
NAMED_ONLY = {  # files that lie nowhere by themselves -> how they are named
    "syncnet": "measures.syncnet and measures.syncnet_config name a SyncNet of this project",
    "identity": f"measures.identity names {IDENTITY}",
    "landmark_network": "measures.landmark_network names a landmark network of this project",
}


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
        return not any(map(self.missing, LANDMARKS))

    def file(self, name: str) -> Path | None:
        """A file that the configuration names, or of the table of weights; None of those that have to be named and are not."""
        if name == "face_mesh":
            return FACE_MESH
        return getattr(self.settings, name, None) or (None if name in NAMED_ONLY else weights_path(name, self.checkpoints))

    def missing(self, name: str) -> str:
        """What is missing, and what to do; empty where the file is there."""
        if (path := self.file(name)) is None:
            return f"it has no file unless {NAMED_ONLY[name]}."
        origin = NAMED_ONLY.get(name) or (MESH_ORIGIN if name == "face_mesh" else WEIGHTS[name].origin)
        return "" if path.is_file() else f"{path} is not there: put it there, from {origin}."

    def names(self, name: str) -> Sequence[str]:
        """One file, or those behind "points", the same that `points` takes."""
        if name != "points":
            return [name]
        return LANDMARKS if self.has_landmarks else ["landmark_network" if self.settings.landmark_network is not None else "face_mesh"]

    def load(self, name: str, load: Callable[..., Any]) -> Any:
        return load(self.file(name)).to(self.device)


METRICS: dict[str, tuple[Callable[[MetricSetup], Metric], Sequence[str]]] = {  # builder, files; in the order of tables
    "sync": (lambda setup: load_sync_confidence(setup.checkpoints, setup.device), SYNC_WEIGHTS),
    "stable_sync": (
        lambda setup: load_stable_sync(
            setup.settings.syncnet_config, setup.settings.syncnet, setup.checkpoints, setup.device, setup.detector
        ),
        ["syncnet"],
    ),
    "ssim": (lambda setup: Ssim(), ()),
    "psnr": (lambda setup: Psnr(), ()),
    "lpips": (lambda setup: Lpips(setup.load("vgg16", load_lpips), setup.device), ["vgg16"]),
    "lmd": (lambda setup: Lmd(setup.points), ["points"]),
    "lips": (lambda setup: Lips(setup.points), ["points"]),
    "silence": (lambda setup: Silence(setup.points), ["points"]),
    "seam": (lambda setup: Seam(setup.mask), ()),
    "jitter": (lambda setup: Jitter(), ()),
    "identity": (lambda setup: Identity(setup.load("identity", load_identity), setup.settings.identity.name, setup.device), ["identity"]),
    "hyperiqa": (lambda setup: HyperIqa(setup.load("hyperiqa", load_hyperiqa)), ["hyperiqa"]),
    "fvd": (lambda setup: Fvd(setup.load("i3d", load_i3d), "one", setup.device), ["i3d"]),
    "fvd_all": (lambda setup: Fvd(setup.load("i3d", load_i3d), "all", setup.device), ["i3d"]),
    "fid": (lambda setup: Fid(setup.load("inception", load_inception), setup.device), ["inception"]),
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
        build, needed = METRICS[name]
        files = [file for part in needed for file in setup.names(part)]
        if missing := " ".join(filter(None, map(setup.missing, files))):
            loaded.missing[name] = missing
            continue
        metric = build(setup)
        loaded.metrics.append(metric)
        loaded.stand_ins.extend([metric.warning] if metric.warning else [])
        loaded.weights[name] = {path.name: file_sha256(path) for path in map(setup.file, files)}
    loaded.metrics.sort(key=lambda metric: isinstance(metric, SetMetric))
    if {"lmd", "lips", "silence"} & loaded.weights.keys() and not setup.has_landmarks:
        loaded.stand_ins.append(
            f"lmd, lips and silence: landmarks are {setup.points.name}, not those of face-alignment (2DFAN-4) "
            "that such figures usually rest on."
        )
    if not loaded.metrics:
        raise InputError(f"Nothing can be measured: {' '.join(loaded.missing.values())}")
    return loaded
