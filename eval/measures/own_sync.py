"""How well picture and sound of a video fit in the eyes of a SyncNet of this project, on faces aligned as inference aligns them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.measures.sync_confidence import SyncResult, open_sound
from eval.measures.sync_offset import MAX_SHIFT, SyncMeter, SyncReading, compare
from latentsync.constants import TEMPLATE_RESOLUTION
from latentsync.errors import InputError
from latentsync.faces.detector import FaceDetector
from latentsync.faces.look import plan_spans
from latentsync.faces.plan import Span
from latentsync.faces.warp import warp_faces
from latentsync.media.video import VideoSource
from latentsync.spectrogram import log_mel

_PIECE = 256  # faces that are held at once


class SpanReader:
    """Offset, confidence and cosine of video files, one result for each span of frames that inference would paint.

    Args:
        meter: a trained SyncNet of pixels.
        detector: that of inference.
    """

    def __init__(self, meter: SyncMeter, detector: FaceDetector) -> None:
        self.meter, self.detector = meter, detector

    def read(self, video: Path, sound: Path | None = None) -> SyncResult:
        """Measure a video with its own sound, or with that of another file; embeddings are held, pictures are not.

        Raises InputError where that cannot be done.
        """
        source = VideoSource(video)
        with open_sound(video, sound) as samples:
            mel = log_mel(samples[:]).float()  # 80 t
        plan = plan_spans(source.frames(), self.detector, TEMPLATE_RESOLUTION, float(source.fps))
        shortest = self.meter.num_frames + MAX_SHIFT
        spans = [span for span in plan.spans if span.stop - span.start >= shortest]
        if not spans:
            raise InputError(f"{video} shows no face for {shortest} successive frames: use a longer one")
        heard, readings, used = self.meter.hear(mel), [], 0
        frames = source.frames(spans[0].start, spans[-1].stop)
        for span, faces in self._faces(frames, spans):
            reading = self._compare(span, faces, heard)
            if reading is not None:
                readings.append(reading)
                used += span.stop - span.start
        if not readings:
            raise InputError(f"{video} has too little sound beside its faces: use a file whose sound is as long as its picture")
        offset, confidence = (np.mean([getattr(reading, name) for reading in readings]) for name in ("offset", "confidence"))
        best = float(np.mean([max(reading.cosines) for reading in readings]))
        return SyncResult(int(offset), float(confidence), best, len(readings), used)

    def _faces(self, frames: Iterator[np.ndarray], spans: list[Span]) -> Iterator[tuple[Span, Iterator[Tensor]]]:
        """Each span with its aligned faces in pieces, uint8 f h w 3; `frames` begin with the first span. To be read in order."""
        place = spans[0].start
        for span in spans:
            for _ in islice(frames, span.start - place):
                pass
            place = span.stop
            yield span, self._warp(islice(frames, span.stop - span.start), span)

    def _warp(self, frames: Iterator[np.ndarray], span: Span) -> Iterator[Tensor]:
        """A span's faces in pieces, each begun by the last faces of the one before, so that every window lies in one of them."""
        matrices, faces = torch.from_numpy(span.matrices), []
        for number, frame in enumerate(frames):
            faces.append(warp_faces([frame], matrices[number : number + 1], TEMPLATE_RESOLUTION)[0])
            if len(faces) == _PIECE:
                yield torch.stack(faces)
                faces = faces[_PIECE - self.meter.num_frames + 1 :]
        if len(faces) >= self.meter.num_frames:
            yield torch.stack(faces)

    def _compare(self, span: Span, faces: Iterator[Tensor], heard: Tensor) -> SyncReading | None:
        """The reading of one span beside the sound of the same frames; None where that is too short."""
        seen = [self.meter.see(piece) for piece in faces]
        beside = heard[span.start : span.stop - self.meter.num_frames + 1]
        if not seen or min(sum(map(len, seen)), len(beside)) <= MAX_SHIFT:
            return None
        return compare(torch.cat(seen), beside)
