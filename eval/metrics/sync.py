"""Sync confidence and offset: SyncNet v2 (as published) and a SyncNet of this project."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector

from eval.metrics.base import Case, Column, Metric, Numbers
from latentsync.constants import AUDIO_SAMPLE_RATE, TEMPLATE_RESOLUTION, VIDEO_FPS
from latentsync.data.clip_index import LARGEST_LAG
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import FaceDetector, build_detector, shrink
from latentsync.faces.plan import plan_spans
from latentsync.faces.tracking import CUT_SIDE
from latentsync.media.audio import AudioSamples, Excerpt, Samples
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.mel import log_mel
from latentsync.sync_meter import SyncMeter, compare, load_sync_meter
from latentsync.third_party.face_tracks import MIN_DETECTIONS, MIN_SIDE, FaceTrack, SyncNetDetector, link_faces, track_crops
from latentsync.third_party.s3fd import load_s3fd
from latentsync.third_party.sync_search import MAX_SHIFT, over_tracks
from latentsync.third_party.syncnet_v2 import SyncNetEval, load_syncnet_v2, overlapping_runs, window_count
from latentsync.weights import CHECKPOINTS, WEIGHTS, file_sha256, weights_path

FACES_HELD = 256  # faces that are held at once
SYNC_WEIGHTS = ("sfd_face", "syncnet_v2")  # of the metric "sync", in the table of weights
NOT_SYNC_C = (
    "NOT Sync-C: measured with a SyncNet of this project, not with SyncNet v2. These confidences are differences of cosines between "
    "0 and 1; they cannot be compared with published figures."
)


class SyncResult(NamedTuple):
    """Offset and confidence of a video; means over its faces."""

    offset: int  # frames; +3: the sound of a frame comes three frames before its picture
    confidence: float
    best: float  # at the offset: the least distance of SyncNet v2, or the largest cosine of a SyncNet of this project
    tracks: int  # faces that were followed and compared
    frames: int  # ... in all


@contextmanager
def open_sound(video: Path, sound: Path | None = None) -> Iterator[Samples]:
    """The sound of a video from its first picture on, or all of another file. Raises InputError: there is none, or only silence."""
    with AudioSamples(video if sound is None else sound) as samples:
        if samples.is_silent:
            raise InputError(f"{samples.info.path} holds silence only: use a file with sound")
        starts = [stream and stream.start_time for stream in (samples.info.audio, samples.info.video)]
        lag = starts[0] - starts[1] if sound is None and None not in starts else 0.0
        lead = round(lag * AUDIO_SAMPLE_RATE) if abs(lag) > LARGEST_LAG else 0  # delays of codecs pretend less than a frame
        yield Excerpt(samples, -lead, len(samples))


def find_tracks(frames: Iterable[np.ndarray], detector: SyncNetDetector) -> list[FaceTrack]:
    """The faces of a video, none of them across a cut: one pass, of which a few numbers a frame are kept."""
    finder, cuts = ContentDetector(), set()

    def with_cuts_noted() -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            small = np.ascontiguousarray(shrink(frame, CUT_SIDE)[..., ::-1])  # scenedetect reads BGR
            cuts.update(cut.frame_num for cut in finder.process_frame(FrameTimecode(number, float(VIDEO_FPS)), small))
            yield frame

    return link_faces(list(detector.boxes(with_cuts_noted())), cuts)


class SyncMetric(Metric):
    """Confidence, offset, and how well picture and sound fit at the offset, of the file itself with its own sound."""

    def measure(self, video: Path, sound: Path | None = None) -> SyncResult:
        """Measure a video with its own sound, or with that of another file. Raises InputError where that cannot be done."""
        raise NotImplementedError

    def of_video(self, case: Case, rows: np.ndarray) -> Numbers:
        """Raises InputError where no face can be followed, or there is no sound. A video without any is measured with that of its case."""
        return self.by_column(self.measure(case.video, None if probe(case.video).has_audio else case.audio))

    def by_column(self, result: SyncResult) -> dict[str, float]:
        values = (result.confidence, result.offset, result.best)
        return {column.name: float(value) for column, value in zip(self.columns, values, strict=True)}


class SyncConfidence(SyncMetric):
    """Sync-C and Sync-D by SyncNet v2; `published` counts windows as the published program does, which leaves out the last one."""

    name = "sync"
    columns = (Column("sync_conf", "", "high", 2), Column("sync_offset", "frames", "zero", 1), Column("sync_d", "", "low", 2))

    def __init__(
        self, detector: SyncNetDetector, network: SyncNetEval, weights: Mapping[str, str] | None = None, published: bool = False
    ) -> None:
        self.detector, self.network, self.published = detector, network, published
        self.settings = {"published": published, **(weights or {})}
        counting = "windows are counted as the published program counts them, one fewer than fit" if published else "every window counts"
        self.protocol = (
            "SyncNet v2 (syncnet_v2.model) on the faces that S3FD (sfd_face.pth) follows within each shot of the video at 25 frames a "
            "second, with the video's own sound: the least mean distance of embeddings over 31 shifts is Sync-D, the median less it the "
            f"confidence (Sync-C); means over faces; {counting}."
        )

    def measure(self, video: Path, sound: Path | None = None) -> SyncResult:
        """One result for each face that is followed; pictures are not held."""
        source, results, frames = VideoReader(video), [], 0
        with open_sound(video, sound) as samples:
            tracks = find_tracks(source.frames(), self.detector)
            if not tracks:
                raise InputError(
                    f"{video} shows no face that S3FD follows within one shot for more than {MIN_DETECTIONS} frames, "
                    f"over {MIN_SIDE} pixels wide or high: use a longer or larger one"
                )
            for track in tracks:
                beside = Excerpt(samples, track.samples.start, min(track.samples.stop, len(samples)))
                if window_count(len(track.boxes), len(beside), self.published):
                    crops = track_crops(source.frames(track.start, track.stop), track)
                    results.append(self.network(crops, beside, self.published))
                    frames += len(track.boxes)
        if not results:
            raise InputError(f"{video} has too little sound beside its faces: use a file whose sound is as long as its picture")
        whole = over_tracks(results)
        distance = float(np.mean([result.distance for result in results]))
        return SyncResult(whole.offset, whole.confidence, distance, len(results), frames)


class StableSync(SyncMetric):
    """Confidence by a SyncNet of this project, of pixels, on the faces that inference finds."""

    name = "stable_sync"
    columns = (
        Column("stable_sync_conf", "cosine", "high", 3),
        Column("stable_sync_offset", "frames", "zero", 1),
        Column("stable_sync_cosine", "", "high", 3),
    )
    warning = NOT_SYNC_C
    protocol = (
        f"{NOT_SYNC_C} Faces are aligned as inference aligns them; the cosine of embeddings is averaged at each of 31 shifts, the "
        "largest is at the offset, and what it has beyond the median is the confidence; means over spans."
    )

    def __init__(self, meter: SyncMeter, detector: FaceDetector, sha256: str) -> None:
        self.meter, self.detector = meter, detector
        sizes = {"resolution": meter.resolution, "num_frames": meter.num_frames, "lower_half": meter.lower_half}
        self.settings = {"syncnet": sha256, **sizes, "detector": detector.name}

    def measure(self, video: Path, sound: Path | None = None) -> SyncResult:
        """One result for each span of frames that inference would generate; embeddings are held, pictures are not."""
        source = VideoReader(video)
        with open_sound(video, sound) as samples:
            mel = log_mel(samples[:]).float()  # 80 t
        plan = plan_spans(source.frames(), self.detector, TEMPLATE_RESOLUTION, float(source.fps))
        shortest = self.meter.num_frames + MAX_SHIFT
        spans = [span for span in plan.spans if span.stop - span.start >= shortest]
        if not spans:
            raise InputError(f"{video} shows no face for {shortest} successive frames: use a longer one")
        audio, readings, frames = self.meter.embed_audio(mel), [], 0
        for span in spans:
            beside = audio[span.start : span.stop - self.meter.num_frames + 1]
            placed = zip(source.frames(span.start, span.stop), torch.from_numpy(span.matrices), strict=False)
            faces = (warp_faces([frame], matrix[None], TEMPLATE_RESOLUTION)[0] for frame, matrix in placed)
            runs = overlapping_runs(faces, FACES_HELD, self.meter.num_frames - 1)
            pictures = torch.cat([beside[:0], *(self.meter.embed_faces(torch.stack(run)) for run in runs)])
            if min(len(pictures), len(beside)) > MAX_SHIFT:
                readings.append(compare(pictures, beside))
                frames += span.stop - span.start
        if not readings:
            raise InputError(f"{video} has too little sound beside its faces: use a file whose sound is as long as its picture")
        offset, confidence = (np.mean([getattr(reading, name) for reading in readings]) for name in ("offset", "confidence"))
        best = float(np.mean([max(reading.cosines) for reading in readings]))
        return SyncResult(int(offset), float(confidence), best, len(readings), frames)


def load_sync_confidence(checkpoints: Path = CHECKPOINTS, device: torch.device | str = "cpu", published: bool = False) -> SyncConfidence:
    """The metric "sync". Raises WeightsError where its files are missing (all are named) or hold other networks."""
    places = {name: weights_path(name, checkpoints) for name in SYNC_WEIGHTS}
    if missing := [f"{place} ({WEIGHTS[name].origin})" for name, place in places.items() if not place.is_file()]:
        raise WeightsError(
            f"SyncNet v2 cannot measure without {' and '.join(missing)}: run `python -m scripts.download_weights --training`, put "
            "the files there by hand, or measure with a SyncNet of this project (--syncnet_config and --syncnet)."
        )
    s3fd, syncnet = places.values()
    detector, network = SyncNetDetector(load_s3fd(s3fd).to(device)), SyncNetEval(load_syncnet_v2(syncnet).to(device))
    return SyncConfidence(detector, network, {name: file_sha256(path) for name, path in places.items()}, published)


def load_stable_sync(
    config: Path, weights: Path, checkpoints: Path = CHECKPOINTS, device: torch.device | str = "cpu", detector: str = "auto"
) -> StableSync:
    """The metric "stable_sync" by a SyncNet of pixels. Raises ConfigError, WeightsError, InputError."""
    faces = build_detector(detector, *(weights_path(name, checkpoints) for name in ("s3fd", "2dfan4")), device)
    return StableSync(load_sync_meter(config, weights, device), faces, file_sha256(weights))
