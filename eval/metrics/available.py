"""The metrics whose weights are there, and what is missing for the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eval.config import MeasuresConfig
from eval.metrics import distribution as fid
from eval.metrics import distribution as fvd
from eval.metrics import image as looks
from eval.metrics.base import Measure, SetMeasure
from eval.metrics.image import Jitter, Lpips, Psnr, Ssim
from eval.metrics.lips import Lmd, RememberedPoints, Silence, build_points
from eval.metrics.seam import Seam
from eval.metrics.sync import NEEDED, load_own_sync, load_sync_confidence
from latentsync.errors import ConfigError, InputError
from latentsync.losses.lpips import load_lpips
from latentsync.pipelines.build import ROOT, resolve_device
from latentsync.third_party.hyperiqa import load_hyperiqa
from latentsync.weights import CHECKPOINTS, WEIGHTS, file_sha256, weights_path

POINT_FILES = ("s3fd", "2dfan4")  # of the 68 landmarks of these:
OF_POINTS = ("lmd", "silence")


class Missing(NamedTuple):
    """A measure that cannot take part."""

    measure: str
    why: str  # a sentence: which file, where it belongs, where it comes from


class Needed(NamedTuple):
    """A file that a measure is loaded from."""

    path: Path | None  # None: it has to be named
    origin: str  # where it comes from, or how it is named


class Entry(NamedTuple):
    """A measure that could be."""

    name: str
    files: Sequence[Needed]
    load: Callable[[], Any]
    of_sets: bool = False


@dataclass(frozen=True)
class Available:
    """What can be measured here.

    Attributes:
        weights: measure -> file -> SHA-256.
        stand_ins: what a reader must not miss about the networks that measure.
    """

    measures: list[Measure]
    sets: list[SetMeasure]
    missing: list[Missing]
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    stand_ins: list[str] = field(default_factory=list)


class Measures:
    """Everything that measures.

    Args:
        settings: which, and their files.
        device, detector: as of the model under test.
        mask: which part of a face that model generates.
        checkpoints: folder of weight files.
    """

    def __init__(self, settings: MeasuresConfig, device: str, detector: str, mask: str, checkpoints: Path = ROOT / CHECKPOINTS) -> None:
        self.settings, self.detector, self.mask, self.checkpoints = settings, detector, mask, checkpoints
        self.device: torch.device = resolve_device(device)
        self._points: RememberedPoints | None = None

    def entries(self) -> list[Entry]:
        """All of them, in the order of tables."""
        at, device = self.settings, self.device
        i3d = Needed(at.i3d or self._place("i3d"), WEIGHTS["i3d"].origin)
        inception = Needed(at.inception or self._place("inception"), WEIGHTS["inception"].origin)
        own = Needed(at.syncnet, "measures.syncnet and measures.syncnet_config name a SyncNet of this project")
        identity = Needed(at.identity, f"measures.identity names {looks.ORIGIN}")
        return [
            Entry("sync", self._table(*NEEDED), lambda: load_sync_confidence(self.checkpoints, device)),
            Entry("own_sync", [own], self._own_sync),
            Entry("ssim", [], Ssim),
            Entry("psnr", [], Psnr),
            Entry("lpips", self._table("vgg16"), lambda: Lpips(load_lpips(self._place("vgg16")).to(device), device)),
            Entry("lmd", self._point_files(), lambda: Lmd(self.points())),
            Entry("silence", self._point_files() or self._table(*POINT_FILES), lambda: Silence(self.points())),
            Entry("seam", [], lambda: Seam(self.mask)),
            Entry("jitter", [], Jitter),
            Entry("identity", [identity], self._identity),
            Entry("hyperiqa", self._table("hyperiqa"), lambda: looks.HyperIqa(load_hyperiqa(self._place("hyperiqa")).to(device))),
            Entry("fvd", [i3d], lambda: fvd.Fvd(fvd.load_i3d(i3d.path, device), "one", device), True),
            Entry("fvd_all", [i3d], lambda: fvd.Fvd(fvd.load_i3d(i3d.path, device), "all", device), True),
            Entry("fid", [inception], lambda: fid.Fid(fid.load_inception(inception.path, device), 1, device), True),
        ]

    def points(self) -> RememberedPoints:
        """Where mouths are, for all measures that ask. Raises WeightsError."""
        if self._points is None:
            self._points = build_points(self.checkpoints, self.settings.reader, self.device)
        return self._points

    def _point_files(self) -> list[Needed]:
        """The files that `build_points` takes; none for its last resort."""
        best = self._table(*POINT_FILES)
        if all(file.path.is_file() for file in best):
            return best
        return (
            [] if self.settings.reader is None else [Needed(self.settings.reader, "measures.reader names a mouth reader of this project")]
        )

    def _table(self, *names: str) -> list[Needed]:
        return [Needed(self._place(name), WEIGHTS[name].origin) for name in names]

    def _place(self, name: str) -> Path:
        return weights_path(name, self.checkpoints)

    def _own_sync(self) -> Measure:
        assert self.settings.syncnet is not None and self.settings.syncnet_config is not None
        return load_own_sync(self.settings.syncnet_config, self.settings.syncnet, self.checkpoints, self.device, self.detector)

    def _identity(self) -> Measure:
        assert self.settings.identity is not None
        network = looks.load_identity(self.settings.identity, self.device)
        return looks.Identity(network, self.settings.identity.name, self.device)

    def stand_in(self, name: str, measure: Any) -> str | None:
        """What must be known of a measure whose network is not the one of its protocol; None where it is."""
        if name in OF_POINTS and not all(self._place(file).is_file() for file in POINT_FILES):
            return f"{name}: landmarks are {self.points().name}, not those of face-alignment (2DFAN-4) that such figures usually rest on."
        return getattr(measure, "warning", None)


def available(
    settings: MeasuresConfig, device: str = "auto", detector: str = "auto", mask: str = "mask", checkpoints: Path = ROOT / CHECKPOINTS
) -> Available:
    """What can be measured here; see `Measures`.

    Raises:
        ConfigError: a measure that is asked for does not exist.
        WeightsError: a file is there and cannot be used.
        InputError: none of those that are asked for has its files.
    """
    registry = Measures(settings, device, detector, mask, checkpoints)
    entries = {entry.name: entry for entry in registry.entries()}
    unknown = [name for name in settings.names if name not in entries]
    if unknown:
        raise ConfigError(f"'measures.names' holds {unknown[0]!r}, but the measures are {', '.join(entries)}")
    found = Available([], [], [])
    for name in settings.names or entries:
        entry = entries[name]
        lacking = [file for file in entry.files if file.path is None or not file.path.is_file()]
        if lacking:
            found.missing.append(Missing(name, " ".join(map(in_words, lacking))))
            continue
        measure = entry.load()
        (found.sets if entry.of_sets else found.measures).append(measure)
        found.weights[name] = {file.path.name: file_sha256(file.path) for file in entry.files if file.path is not None}
        if words := registry.stand_in(name, measure):
            found.stand_ins.append(words)
    if not found.measures and not found.sets:
        raise InputError(f"Nothing can be measured: {' '.join(entry.why for entry in found.missing)}")
    return found


def in_words(file: Needed) -> str:
    """What is missing, and what to do."""
    if file.path is None:
        return f"it has no file unless {file.origin}."
    return f"{file.path} is not there: put it there, from {file.origin}."
