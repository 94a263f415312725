"""Which source frame, which face and which clip each output frame belongs to; numbers only, no pictures."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, islice

import numpy as np
import torch

from latentsync.constants import LATENT_CHANNELS
from latentsync.faces.plan import FacePlan
from latentsync.media.video_reader import source_index


@dataclass
class Clip:
    """Up to `num_frames` neighbouring output frames that share one face, or none, in which case all but the first two stay empty."""

    start: int  # index of its first output frame
    frames: list[np.ndarray]  # uint8 pictures (h, w, 3)
    matrices: np.ndarray | None = None  # float32 (f, 2, 3), picture to aligned face
    span: int | None = None  # index of its span in the plan
    sources: Sequence[int] = ()  # frames of the video that are shown
    noise: torch.Tensor | None = None  # standard normal (2, f, 4, h/8, w/8) for sampling the masked and the reference latents
    faces: torch.Tensor | None = None  # uint8 (f, R, R, 3), aligned
    reference: torch.Tensor | None = None  # uint8 (R, R, 3), the face that all of its frames have as reference; None: each has its own
    keep: torch.Tensor | None = None  # float32 (f, R, R), what of the faces is not pasted (1 = not); None where all of it is

    @property
    def stop(self) -> int:
        """Index behind its last output frame."""
        return self.start + len(self.frames)

    def crop_names(self) -> list[str]:
        """A name for the aligned face of each frame, the same wherever the same frame is cropped alike."""
        crops = zip(self.sources, self.matrices, strict=True)
        return [f"{source}-{hashlib.sha256(matrix.tobytes()).hexdigest()[:16]}" for source, matrix in crops]


def frames_in(seconds: Fraction, fps: Fraction) -> int:
    """Whole frames nearest to a duration, at least one."""
    return max(1, int(seconds * fps + Fraction(1, 2)))


def pieces(plan: FacePlan, total: int, num_frames: int) -> Iterator[tuple[int, int, int | None]]:
    """Cut `total` output frames into clips: (start, stop, index of the span in the plan or None).

    Frames beyond the source play backwards and forwards again; a clip may hold a turn, since nothing is cut there, but never two spans.
    """
    span_of = np.full(plan.num_frames, -1, dtype=np.int32)
    for index, span in enumerate(plan.spans):
        span_of[span.start : span.stop] = index
    start = 0
    for index, run in groupby(range(total), key=lambda i: int(span_of[source_index(i, plan.num_frames)])):
        stop = start + sum(1 for _ in run)
        for begin in range(start, stop, num_frames):
            yield begin, min(begin + num_frames, stop), None if index < 0 else index
        start = stop


def clips(
    frames: Iterable[np.ndarray], plan: FacePlan, total: int, num_frames: int, latent_size: int, generator: torch.Generator
) -> Iterator[Clip]:
    """The output's timeline of `total` pictures as clips, in order, each with its noise.

    Noise is drawn clip by clip (masked, then reference), so that it does not depend on how clips are batched later.
    """
    stream = iter(frames)
    for start, stop, index in pieces(plan, total, num_frames):
        clip = Clip(start, list(islice(stream, stop - start)))
        if not clip.frames:
            return
        if index is not None:
            span = plan.spans[index]
            clip.span, clip.sources = index, [source_index(i, plan.num_frames) for i in range(start, clip.stop)]
            clip.matrices = span.matrices[np.array(clip.sources) - span.start]
            shape = (len(clip.frames), LATENT_CHANNELS, latent_size, latent_size)
            clip.noise = torch.stack([torch.randn(shape, generator=generator) for _ in ("masked", "reference")])
        yield clip


def batches(stream: Iterable[Clip], batch_clips: int) -> Iterator[list[Clip]]:
    """Neighbouring clips, in order, until `batch_clips` of them have a face or as many again have none."""
    batch: list[Clip] = []
    for clip in stream:
        batch.append(clip)
        with_face = sum(clip.matrices is not None for clip in batch)
        if with_face >= batch_clips or len(batch) - with_face > batch_clips:
            yield batch
            batch = []
    if batch:
        yield batch


def same_length(batch: Sequence[Clip]) -> Iterator[list[Clip]]:
    """The clips of a batch that have a face, those of one length together, which can go through the networks at once."""
    with_face = [clip for clip in batch if clip.matrices is not None]
    for length in sorted({len(clip.frames) for clip in with_face}, reverse=True):
        yield [clip for clip in with_face if len(clip.frames) == length]
