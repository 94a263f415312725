"""The measures "sync" (SyncNet v2, as published figures are measured) and "own_sync" (a SyncNet of this project: other figures)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from eval.measures.measure import Case, Chunk, Column, Numbers
from eval.measures.own_sync import SpanReader
from eval.measures.sync_confidence import SyncResult, TrackReader
from eval.measures.sync_offset import load_sync_meter
from latentsync.errors import WeightsError
from latentsync.faces.build import build_detector
from latentsync.media.ffmpeg import probe
from latentsync.third_party.face_tracks import SyncNetDetector
from latentsync.third_party.s3fd import load_s3fd
from latentsync.third_party.syncnet_v2 import SyncNetEval, load_syncnet_v2
from latentsync.weights import CHECKPOINTS, WEIGHTS, file_sha256, weights_path

NEEDED = ("sfd_face", "syncnet_v2")  # in the table of weights
NO_SYNC_C = (
    "NOT Sync-C: measured with a SyncNet of this project, not with SyncNet v2. These confidences are differences of cosines between "
    "0 and 1; they cannot be compared with published figures."
)
Device = torch.device | str


class Reads(Protocol):
    """What measures one file."""

    def read(self, video: Path, sound: Path | None = None) -> SyncResult:
        """Measure a video with its own sound, or with that of another file. Raises InputError."""


@dataclass(frozen=True)
class SyncMeasure:
    """What both measures are, each a `Measure`: confidence, offset, and how well both fit at the offset.

    Attributes:
        reader: what measures a file.
        settings: what decides the numbers beside the file: checksums of weights, ways of counting.
        warning: what a reader of the numbers must not miss; None where they are what their name says.
    """

    name: str
    protocol: str
    columns: Sequence[Column]
    reader: Reads
    settings: Mapping[str, Any]
    warning: str | None = None

    def open(self, case: Case) -> "_FileTally":
        """Begin with a video. The file itself is read, with its own sound; where it has none, with what it was made to say."""
        return _FileTally(self, case)

    def numbers(self, result: SyncResult) -> dict[str, float]:
        """A result by column."""
        values = (result.confidence, result.offset, result.best)
        return {column.name: float(value) for column, value in zip(self.columns, values, strict=True)}


class SyncConfidence(SyncMeasure):
    """The measure "sync"."""

    def __init__(self, reader: Reads, settings: Mapping[str, Any] | None = None, published: bool = False) -> None:
        counting = "windows are counted as the published program counts them, one fewer than fit" if published else "every window counts"
        super().__init__(
            "sync",
            "SyncNet v2 (syncnet_v2.model) on the faces that S3FD (sfd_face.pth) follows within each shot of the video at 25 frames a "
            "second, with the video's own sound: the least mean distance of embeddings over 31 shifts is Sync-D, the median less it the "
            f"confidence (Sync-C); means over faces; {counting}.",
            (
                Column("sync_conf", "", "high", 2),
                Column("sync_offset", "frames", "zero", 1),
                Column("sync_d", "", "low", 2),
            ),
            reader,
            {"published": published, **(settings or {})},
        )


class OwnSync(SyncMeasure):
    """The measure "own_sync"."""

    def __init__(self, reader: Reads, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            "own_sync",
            f"{NO_SYNC_C} Faces are aligned as inference aligns them; the cosine of embeddings is averaged at each of 31 shifts, the "
            "largest is at the offset, and what it has beyond the median is the confidence; means over spans.",
            (
                Column("own_sync_conf", "cosine", "high", 3),
                Column("own_sync_offset", "frames", "zero", 1),
                Column("own_sync_cosine", "", "high", 3),
            ),
            reader,
            settings or {},
            NO_SYNC_C,
        )


class _FileTally:
    """Waits for the end of the video, then reads its file."""

    def __init__(self, measure: SyncMeasure, case: Case) -> None:
        self._measure, self._case = measure, case

    def add(self, chunk: Chunk) -> None:
        """Chunks are not looked at: SyncNet has its own way of finding and cutting faces."""

    def finish(self) -> Numbers:
        """Raises InputError where no face can be followed, or nothing is heard."""
        video = self._case.video
        sound = None if probe(video).has_audio else self._case.audio
        return self._measure.numbers(self._measure.reader.read(video, sound))


def missing_weights(checkpoints: Path = CHECKPOINTS) -> dict[str, str]:
    """Name -> place and source of each file that "sync" needs and that is not there."""
    places = {name: weights_path(name, checkpoints) for name in NEEDED}
    return {name: f"{place} ({WEIGHTS[name].origin})" for name, place in places.items() if not place.is_file()}


def load_sync_confidence(checkpoints: Path = CHECKPOINTS, device: Device = "cpu", published: bool = False) -> SyncConfidence:
    """The measure "sync". Raises WeightsError where its files are missing (all are named) or hold other networks."""
    if missing := missing_weights(checkpoints):
        raise WeightsError(
            f"SyncNet v2 cannot measure without {' and '.join(missing.values())}: run `python -m scripts.download_weights --training`, put "
            "the files there by hand, or measure with a SyncNet of this project (--syncnet_config and --syncnet)."
        )
    s3fd, syncnet = (weights_path(name, checkpoints) for name in NEEDED)
    settings = {name: file_sha256(path) for name, path in zip(NEEDED, (s3fd, syncnet), strict=True)}
    reader = TrackReader(SyncNetDetector(load_s3fd(s3fd).to(device)), SyncNetEval(load_syncnet_v2(syncnet).to(device)), published)
    return SyncConfidence(reader, settings, published)


def load_own_sync(config: Path, weights: Path, checkpoints: Path = CHECKPOINTS, device: Device = "cpu", detector: str = "auto") -> OwnSync:
    """The measure "own_sync" by a SyncNet of pixels and the face detector of inference.

    Raises ConfigError, WeightsError or InputError where they cannot be used.
    """
    meter = load_sync_meter(config, weights, device)
    faces = build_detector(detector, *(weights_path(name, checkpoints) for name in ("s3fd", "2dfan4")), device)
    sizes = {"resolution": meter.resolution, "num_frames": meter.num_frames, "lower_half": meter.lower_half}
    settings = {"syncnet": file_sha256(weights), **sizes, "detector": faces.name}
    return OwnSync(SpanReader(meter, faces), settings)
