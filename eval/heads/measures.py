"""Everything that is measured of one pair of rendered heads: the generated video beside the source it was made of and the true render."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from eval.heads.pairs import Pair, aligned_faces, clip_mel, mouth_points, read_truth
from eval.measures.mouths import (
    CLOSED_CM,
    Appearance,
    appearance_distance,
    landmark_distance,
    landmark_jitter,
    opening_follows,
    pixel_difference,
    pixel_jitter,
    read_mouths,
)
from eval.measures.sync_offset import PairTally, SyncMeter, SyncReading, compare, pair_accuracy
from latentsync.data.clips import generator
from latentsync.faces.align import align_known
from latentsync.models.mouth_reader import Mouth, MouthReader

PAIRS_PER_CLIP = 40  # windows with right and wrong sound that SyncNet is asked about, of each clip
ACCURACY_SEED = 42


_T = TypeVar("_T")
_Other = TypeVar("_Other")


@dataclass(frozen=True)
class Trio(Generic[_T]):
    """The same of all three videos of a pair."""

    generated: _T
    source: _T  # unchanged
    true: _T  # the true render of the new words

    def map(self, change: Callable[[_T], _Other]) -> "Trio[_Other]":
        """Something else of all three."""
        return Trio(change(self.generated), change(self.source), change(self.true))


@dataclass(frozen=True)
class SyncMeasures:
    """One video in the eyes of one SyncNet."""

    old: SyncReading  # beside the sound of the source
    new: SyncReading  # beside the sound that it was to be given


@dataclass(frozen=True)
class VideoMeasures:
    """One video of a pair: generated, source unchanged, or true render."""

    syncnet: SyncMeasures
    judge: SyncMeasures | None
    opening: list[float]  # of the lips in each frame, units of the face's side
    opening_r: float | None  # Pearson's r with the truth of the new words
    lmd: float  # distance of the mouth's landmarks from the true render's, units of the face's side
    appearance: float  # distance of how the mouth looks from the true render
    l1: float  # of the mouth box, grey levels
    psnr: float  # of the mouth box, decibels
    landmark_jitter: float  # units of the face's side
    pixel_jitter: float  # grey levels


@dataclass(frozen=True)
class PairMeasures:
    """One pair."""

    name: str
    frames: int
    generated_share: float  # of its frames that got a new mouth
    syncnet_pairs: PairTally  # on source and true render, each with its own sound
    judge_pairs: PairTally | None
    closed: list[float]  # opening as read in frames of the true render whose lips are closed
    truth_r: float | None  # Pearson's r of the true openings of the old and of the new words: these alone are no more different
    reader_error: float  # distance of the landmarks read off the true render from the truth, units of the face's side
    videos: Trio[VideoMeasures]


@dataclass(frozen=True)
class SilenceMeasures:
    """One person hearing nothing."""

    name: str
    opening: list[float]  # of the generated lips
    source_opening: list[float]  # of the lips before


class HeadsMeter:
    """The networks that measure, and how.

    Args:
        resolution: side in pixels of the aligned faces that everything is measured on.
        syncnet: the one that the denoiser was trained with.
        judge: one that it was not trained with.
        reader: where lips are.
        appearance: how different mouths look.
        device: where reader and appearance compute.
    """

    def __init__(
        self,
        resolution: int,
        syncnet: SyncMeter,
        judge: SyncMeter | None,
        reader: MouthReader,
        appearance: Appearance,
        device: torch.device | str = "cpu",
    ) -> None:
        self.resolution = resolution
        self.syncnet, self.judge = syncnet, judge
        self.reader, self.appearance, self.device = reader, appearance, device

    def faces(self, pair: Pair, generated: Path) -> Trio[Tensor]:
        """Aligned faces uint8 f h w 3, all cut by the transforms of the source. InputError: a video cannot be decoded or is too short."""
        matrices = self._matrices(pair)
        return Trio(generated, pair.video, pair.twin).map(lambda video: aligned_faces(video, matrices, self.resolution))

    def measure(self, pair: Pair, number: int, generated: Path, generated_share: float) -> PairMeasures:
        """Measure one pair; `number` seeds what is drawn by chance. Raises InputError as `faces`, and where a clip is too short."""
        faces = self.faces(pair, generated)
        mels = clip_mel(pair.video), clip_mel(pair.twin)
        syncnet, syncnet_pairs = ask(self.syncnet, faces, *mels, number)
        judge, judge_pairs = (Trio(None, None, None), None) if self.judge is None else ask(self.judge, faces, *mels, number)
        mouths = faces.map(lambda part: read_mouths(self.reader, part))
        old, new, frames = read_truth(pair.video), read_truth(pair.twin), len(faces.true)
        gap, points = new.lip_gap[:frames], mouth_points(new.landmarks[:frames], self._matrices(pair), self.resolution)

        def of(name: str) -> VideoMeasures:
            part, mouth = getattr(faces, name), getattr(mouths, name)
            return self._measure_video(part, faces.true, mouth, mouths.true, gap, getattr(syncnet, name), getattr(judge, name))

        return PairMeasures(
            name=pair.name,
            frames=frames,
            generated_share=generated_share,
            syncnet_pairs=syncnet_pairs,
            judge_pairs=judge_pairs,
            closed=mouths.true.gap[gap < CLOSED_CM].tolist(),
            truth_r=opening_follows(old.lip_gap[:frames], gap),
            reader_error=landmark_distance(mouths.true.points, points),
            videos=Trio("generated", "source", "true").map(of),
        )

    def measure_silence(self, pair: Pair, generated: Path) -> SilenceMeasures:
        """Measure a person who hears nothing. Raises InputError: a video cannot be decoded or is too short."""
        matrices = align_known(read_truth(pair.video).landmarks, self.resolution)
        made, before = (
            read_mouths(self.reader, aligned_faces(video, matrices, self.resolution)).gap.tolist() for video in (generated, pair.video)
        )
        return SilenceMeasures(pair.name, made, before)

    def _matrices(self, pair: Pair) -> Tensor:
        """Transforms of the frames that both clips of a pair have, from the source's truth: n 2 3."""
        landmarks, frames = read_truth(pair.video).landmarks, len(read_truth(pair.twin))
        return align_known(landmarks[:frames], self.resolution)

    def _measure_video(
        self, faces: Tensor, true: Tensor, mouth: Mouth, true_mouth: Mouth, gap: Tensor, syncnet: SyncMeasures, judge: SyncMeasures | None
    ) -> VideoMeasures:
        """One video f h w 3 beside the true render; gap: true opening of the lips for the new words, f."""
        pixels = pixel_difference(faces, true)
        return VideoMeasures(
            syncnet=syncnet,
            judge=judge,
            opening=mouth.gap.tolist(),
            opening_r=opening_follows(mouth.gap, gap),
            lmd=landmark_distance(mouth.points, true_mouth.points),
            appearance=appearance_distance(self.appearance, faces, true, self.device),
            l1=pixels.l1,
            psnr=pixels.psnr,
            landmark_jitter=landmark_jitter(mouth.points),
            pixel_jitter=pixel_jitter(faces),
        )


def ask(meter: SyncMeter, faces: Trio[Tensor], old: Tensor, new: Tensor, number: int) -> tuple[Trio[SyncMeasures], PairTally]:
    """All three videos beside the old and the new sound (mels 80 t); and pairs of the two real ones with their own sound."""
    heard_old, heard_new = meter.hear(old), meter.hear(new)
    seen = faces.map(meter.see)
    tallies = [
        pair_accuracy(windows, heard, meter.num_frames, PAIRS_PER_CLIP, generator(ACCURACY_SEED, 2 * number + side))
        for side, (windows, heard) in enumerate(((seen.source, heard_old), (seen.true, heard_new)))
    ]
    readings = seen.map(lambda windows: SyncMeasures(compare(windows, heard_old), compare(windows, heard_new)))
    return readings, PairTally(*(sum(values) for values in zip(*tallies, strict=True)))
