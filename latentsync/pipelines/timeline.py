"""Which source frame, which face and which clip each output frame belongs to; numbers only, no pictures."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, groupby, islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentsync.constants import LATENT_CHANNELS
from latentsync.faces.plan import FacePlan
from latentsync.media.video_reader import source_index
from latentsync.whisper.audio2feature import AudioWindows


@dataclass
class SpokenLine:
    """What the clips of a line are made from: the windows of its sound, and its noise."""

    windows: AudioWindows
    first: int  # frame of the result that the first window belongs to
    random: torch.Generator  # for the noise of clips, in order
    noise: Tensor  # (1, 4, 1, h/8, w/8), where every frame starts

    def audio(self, start: int, stop: int) -> Tensor:
        """Windows of frames start..stop of the result: float32 (f, n, d)."""
        return self.windows.frames(start - self.first, stop - self.first)


class Part(NamedTuple):
    """Which segments of a long result a process makes: of all that can begin by themselves each `count`-th from `index` on."""

    index: int
    count: int


Piece = tuple[int, int, int | None]  # of the output's frames: start, stop, index of the span in the plan


@dataclass
class Clip:
    """Up to `num_frames` neighbouring output frames that share one face, or none, in which case all but the first two stay empty."""

    start: int  # index of its first output frame
    frames: list[np.ndarray]  # uint8 pictures (h, w, 3)
    matrices: np.ndarray | None = None  # float32 (f, 2, 3), picture to aligned face
    span: int | None = None  # index of its span in the plan
    voice: SpokenLine | None = None  # of its line
    sources: Sequence[int] = ()  # frames of the video that are shown
    noise: Tensor | None = None  # standard normal (2, f, 4, h/8, w/8) for sampling the masked and the reference latents
    faces: Tensor | None = None  # uint8 (f, R, R, 3), aligned
    reference: Tensor | None = None  # uint8 (R, R, 3), the face that all of its frames have as reference; None: each has its own
    shares: np.ndarray | None = None  # float32 (f,), how much of the new mouth each frame shows
    output: Iterable[np.ndarray] | None = None  # uint8 (h, w, 3), its frames with a new mouth, made when asked for; `frames` are let go of
    keep: Tensor | None = None  # float32 (f, R, R), what of the faces is not pasted (1 = not); None where all of it is

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


def pieces(plan: FacePlan, total: int, num_frames: int) -> Iterator[Piece]:
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


def pieces_within(cut: Sequence[Piece], start: int, stop: int) -> Iterator[Piece]:
    """The pieces of output frames start..stop, which cut none with a face."""
    for begin, end, index in islice(cut, bisect_right(cut, start, key=lambda piece: piece[1]), None):
        if begin >= stop:
            return
        yield max(begin, start), min(end, stop), index


def segment_stops(cuts: Iterable[Sequence[Piece]], total: int, length: int) -> list[int]:
    """Where segments of about `length` of `total` frames or more end, so that none cuts a clip with a face of any layer."""
    is_free = np.ones(total + 1, dtype=bool)
    for start, stop, index in chain.from_iterable(cuts):
        if index is not None:
            is_free[start + 1 : stop] = False
    stops = [0]
    for stop in np.flatnonzero(is_free).tolist():
        if stop - stops[-1] >= length and total - stop >= length // 2:
            stops.append(stop)
    return [*stops[1:], total]


def separate_runs(cuts: Sequence[Sequence[Piece]], stops: Sequence[int]) -> list[range]:
    """Runs of segments, by number, that can be made without each other: none begins within a span of a layer that sees new mouths.

    `cuts`: of all layers; `stops`: where segments end. The last segment is left to whom joins them.
    """
    ongoing = set()
    for cut in cuts[1:]:  # the first layer sees the film itself
        ongoing |= {after[0] for before, after in pairwise(cut) if before[2] is not None and before[2] == after[2]}
    starts = [number for number in range(len(stops) - 1) if number == 0 or stops[number - 1] not in ongoing]
    return [range(start, stop) for start, stop in pairwise([*starts, len(stops) - 1])]


def clips(
    frames: Iterable[np.ndarray], plan: FacePlan, cut: Iterable[Piece], latent_size: int, voice_of: Callable[[int], SpokenLine]
) -> Iterator[Clip]:
    """Pictures of the output as clips, in order, those with a face each with its noise.

    `voice_of`: index of a request of the plan -> its voice. Noise is drawn clip by clip (masked, then reference), so that it does not
    depend on how clips are batched later.
    """
    stream = iter(frames)
    for start, stop, index in cut:
        clip = Clip(start, list(islice(stream, stop - start)))
        if not clip.frames:
            return
        if index is not None:
            span = plan.spans[index]
            clip.span, clip.voice = index, voice_of(span.request)
            clip.sources = [source_index(i, plan.num_frames) for i in range(start, clip.stop)]
            places = np.array(clip.sources) - span.start
            clip.matrices, clip.shares = span.matrices[places], span.shares[places]
            clip.noise = clip_noise(len(clip.frames), latent_size, clip.voice.random)
        yield clip


def clip_noise(num_frames: int, latent_size: int, generator: torch.Generator) -> torch.Tensor:
    """The noise (2, f, 4, h/8, w/8) of the next clip."""
    shape = (num_frames, LATENT_CHANNELS, latent_size, latent_size)
    return torch.stack([torch.randn(shape, generator=generator) for _ in ("masked", "reference")])


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
