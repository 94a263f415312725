"""From a case to chunks: both videos side by side at 25 frames a second, their faces aligned by the transforms of the source."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from eval.measures.measure import Case, Chunk
from latentsync.errors import InputError
from latentsync.faces.choice import FaceChoice
from latentsync.faces.detector import FaceDetector
from latentsync.faces.look import plan_spans
from latentsync.faces.plan import FacePlan
from latentsync.faces.warp import warp_faces
from latentsync.media.video import VideoSource

logger = logging.getLogger(__name__)

CHUNK_FRAMES = 16  # frames that go by together
LENGTH_SLACK = 1  # frames by which the lengths of a video and its source may differ without a word


class Looker:
    """Finds faces in sources as inference does, and cuts cases into chunks.

    Args:
        detector: of inference.
        resolution: side in pixels of the aligned faces.
        face: whose face, as inference was told.
        warn: is given a sentence on what a reader of the results should know.
    """

    def __init__(
        self, detector: FaceDetector, resolution: int, face: str = "largest", warn: Callable[[str], None] = logger.warning
    ) -> None:
        self.detector, self.resolution, self.choice, self.warn = detector, resolution, FaceChoice.parse(face), warn
        self._last: tuple[Path, FacePlan] | None = None  # cases of one source follow each other

    def plan(self, source: Path) -> FacePlan:
        """Where the face of a source is. Raises InputError where it cannot be decoded or shows none."""
        if self._last is None or self._last[0] != source:
            video = VideoSource(source)
            plan = plan_spans(video.frames(), self.detector, self.resolution, float(video.fps), self.choice)
            if not plan.spans:
                reasons = ", ".join(sorted({run.reason for run in plan.skipped})) or "no face"
                raise InputError(f"{source} cannot be measured, since no frame of it would get a new mouth ({reasons}): leave it out")
            self._last = source, plan
        return self._last[1]

    def chunks(self, case: Case) -> Iterator[Chunk]:
        """The frames that both videos have. Raises InputError: see `plan`; also where the video cannot be decoded or is of another size."""
        video, source = VideoSource(case.video), VideoSource(case.source)
        if (video.width, video.height) != (source.width, source.height):
            raise InputError(
                f"{case.video} is {video.width}x{video.height} and its source {case.source} {source.width}x{source.height}: "
                "measure videos of one size"
            )
        has_face, matrices = per_frame(self.plan(case.source))
        made, real = video.frames(), source.frames()
        try:
            yield from self._cut(made, real, has_face, matrices, case)
        finally:
            made.close()
            real.close()

    def _cut(
        self, made: Iterator[np.ndarray], real: Iterator[np.ndarray], has_face: np.ndarray, matrices: np.ndarray, case: Case
    ) -> Iterator[Chunk]:
        start, whole = 0, True
        while whole:
            frames, source_frames = list(islice(made, CHUNK_FRAMES)), list(islice(real, CHUNK_FRAMES))
            count = min(len(frames), len(source_frames), len(has_face) - start)
            whole = count == CHUNK_FRAMES
            if count:
                yield self._chunk(start, frames[:count], source_frames[:count], has_face, matrices)
            start += count
        rest = len(frames) - count + sum(1 for _ in made), len(source_frames) - count + sum(1 for _ in real)
        if max(rest) > LENGTH_SLACK:
            self.warn(
                f"{case.video} has {start + rest[0]} frames and its source {start + rest[1]}: the first {start} of both are measured."
            )

    def _chunk(
        self, start: int, frames: list[np.ndarray], source_frames: list[np.ndarray], has_face: np.ndarray, matrices: np.ndarray
    ) -> Chunk:
        here = slice(start, start + len(frames))
        chosen = np.flatnonzero(has_face[here])
        transforms = torch.from_numpy(matrices[here][chosen])
        return Chunk(
            start=start,
            frames=np.stack(frames),
            source_frames=np.stack(source_frames),
            has_face=has_face[here],
            faces=self._faces(frames, chosen, transforms),
            source_faces=self._faces(source_frames, chosen, transforms),
            matrices=transforms,
        )

    def _faces(self, frames: list[np.ndarray], chosen: np.ndarray, transforms: torch.Tensor) -> torch.Tensor:
        """Aligned faces uint8 k R R 3 of the chosen frames, on the CPU; k may be 0."""
        if not len(chosen):
            return torch.empty(0, self.resolution, self.resolution, 3, dtype=torch.uint8)
        return warp_faces([frames[index] for index in chosen], transforms, self.resolution)


def truth_chunk(chunk: Chunk) -> Chunk:
    """The same moment of `Case.truth()`: the source in the place of the video under test."""
    return replace(chunk, frames=chunk.source_frames, faces=chunk.source_faces)


def per_frame(plan: FacePlan) -> tuple[np.ndarray, np.ndarray]:
    """Which frames have a face, bool n, and the transforms of all frames, float32 n 2 3 (zeros where there is none)."""
    has_face, matrices = np.zeros(plan.num_frames, dtype=bool), np.zeros((plan.num_frames, 2, 3), np.float32)
    for span in plan.spans:
        has_face[span.start : span.stop] = True
        matrices[span.start : span.stop] = span.matrices
    return has_face, matrices
