"""Evaluation of a model on rendered people with known landmarks, with controls that must fail: `python -m embedded.evaluate --help`."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from scipy.io import wavfile
from torch import Tensor

from embedded.autoencoder import PerceptualLoss
from embedded.landmarks import pearson, read_labels
from embedded.talking_heads.aligned import align_known, on_face
from eval.estimates import NONE, Estimate, bootstrap, json_value, markdown_table, mean, ratio, share
from eval.inference_videos import add_model_arguments
from eval.metrics.image import appearance_distance, decibels, mouths
from eval.metrics.lips import PointFinder, build_points
from latentsync.cli import run_command
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.clip_index import PAIR_SUFFIX, counterpart_path
from latentsync.data.sampling import SYNCNET_LENGTHS, choose_syncnet, generator
from latentsync.errors import ConfigError, InputError, OutputError, WeightsError
from latentsync.faces.alignment import warp_faces
from latentsync.losses.lpips import load_lpips
from latentsync.losses.sync import IN_SYNC
from latentsync.media.audio import read_audio
from latentsync.media.files import read_record, staged, walk_media, write_json, write_text
from latentsync.media.video_reader import VideoReader
from latentsync.mel import log_mel
from latentsync.models.landmark_network import FIRST_POINT, POINTS, MouthLandmarks, measure
from latentsync.sync_meter import SyncMeter, SyncReading, compare

if TYPE_CHECKING:
    from eval.cases import GeneratedVideos

logger = logging.getLogger("eval")

# Data: rendered pairs and their aligned faces

VIDEOS = ("generated", "source", "reference")  # what is measured: the result, the unchanged source (control), the render of the new words


@dataclass(frozen=True)
class RenderedPair:
    """Two clips of one person."""

    name: str  # the clip's path below its folder, without an extension
    video: Path  # the source
    reference: Path  # the new words, and the render of them


def find_pairs(folder: Path, limit: int | None = None) -> list[RenderedPair]:
    """The pairs below a folder, by name, the first `limit` of them. Raises InputError where there is none."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: give 1 or more, or leave it out")
    videos = (path for path in walk_media(folder, {".mp4"}) if not path.stem.endswith(PAIR_SUFFIX))
    names = ((path, counterpart_path(path)) for path in videos)
    pairs = [RenderedPair(str(path.relative_to(folder).with_suffix("")), path, other) for path, other in names if other.is_file()]
    if not pairs:
        advice = "render pairs with `python -m embedded.talking_heads clips --pairs --split test`"
        raise InputError(f"{folder} holds no pair of clips (*{PAIR_SUFFIX}.mp4): {advice}")
    return pairs[:limit]


def mouth_points(landmarks: np.ndarray, matrices: Tensor, resolution: int) -> Tensor:
    """The mouth among landmarks n 68 2, on the aligned faces: float32 n 20 2 in units of the face's side."""
    mouth = landmarks[:, FIRST_POINT : FIRST_POINT + POINTS]
    return torch.from_numpy((on_face(mouth, matrices.numpy(), resolution) + 0.5) / np.float32(resolution))


def aligned_faces(video: Path, matrices: Tensor, resolution: int) -> Tensor:
    """Faces of a video by given transforms n 2 3: uint8 n h w 3; the pictures are decoded one by one. InputError: it has fewer frames."""
    frames: Iterator[np.ndarray] = VideoReader(video).frames(0, len(matrices))
    faces = [warp_faces([frame], matrices[k : k + 1], resolution)[0] for k, frame in enumerate(frames)]
    if len(faces) < len(matrices):
        raise InputError(f"{video} has {len(faces)} frames and its clip {len(matrices)}: delete it, so that it is generated again")
    return torch.stack(faces)


def clip_mel(clip: Path) -> Tensor:
    """Log-mel of a clip for SyncNet: float32 80 t. Raises InputError."""
    samples = read_audio(clip)
    if not len(samples):
        raise InputError(f"{clip} holds no sound: render it again")
    return log_mel(samples).float()


# Single measures

CLOSED_CM = 0.02  # lips less far apart than this count as closed
SPEECH_SHARES = (5, 95)  # percentiles of the opening between which speech moves the lips


def generate_silent(videos: "GeneratedVideos", name: str, video: Path, frames: int) -> Path:
    """A video of so many frames with silence. Raises like `GeneratedVideos.generate`."""
    with TemporaryDirectory(prefix="latentsync-") as folder:
        audio = Path(folder) / "silence.wav"
        wavfile.write(audio, AUDIO_SAMPLE_RATE, np.zeros(frames * AUDIO_SAMPLE_RATE // VIDEO_FPS, np.int16))
        return videos.generate(name, video, audio)


def generated_share(videos: "GeneratedVideos", name: str) -> float:
    """Share of a kept video's frames whose mouth was generated."""
    note = read_record(videos.folder / f"{name}.json")
    return note.get("generated", 0) / max(1, note.get("frames", 1))


class Appearance(NamedTuple):
    """A perceptual distance of mouths, and its name."""

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]  # pixels 1 f 3 h w of both -> a scalar, a mean over frames


def make_appearance(vgg16: Path | None, device: torch.device | str = "cpu") -> Appearance:
    """LPIPS of the lower half where the file of VGG-16 is at hand, else the distance of EfficientNet-Lite0's features in its place.

    Raises WeightsError where the file is there and no VGG-16.
    """
    if vgg16 is not None:
        return Appearance("LPIPS (VGG-16, lower half)", load_lpips(vgg16).to(device))
    loss = PerceptualLoss().to(device)
    half = lambda pixels: pixels[0, ..., pixels.shape[-2] // 2 :, :]  # noqa: E731 - 1 f 3 h w -> f 3 h/2 w
    return Appearance("features of EfficientNet-Lite0 (lower half), standing in for LPIPS", lambda seen, real: loss(half(seen), half(real)))


class PixelDifference(NamedTuple):
    """How far the pixels of two mouths are apart."""

    l1: float  # mean absolute difference, grey levels
    psnr: float  # decibels, of the mean squared difference


def pixel_difference(faces: Tensor, reference: Tensor) -> PixelDifference:
    """Of the mouth boxes of aligned faces uint8 f h w 3."""
    difference = mouths(faces) - mouths(reference)
    return PixelDifference(float(difference.abs().mean()), decibels(float(difference.double().square().mean())))


def pixel_jitter(faces: Tensor) -> float:
    """Mean absolute second difference along time of the mouth boxes of uint8 f h w 3, grey levels; 0 for fewer than three frames."""
    return float(mouths(faces).diff(n=2, dim=0).abs().mean()) if len(faces) > 2 else 0.0


def read_mouths(finder: PointFinder, faces: Tensor) -> MouthLandmarks:
    """The mouths on aligned faces uint8 f h w 3, on the CPU; points float32 f 20 2 in units of the face's side.

    A mouth that was not found is taken from the frames around. Raises InputError where none was found.
    """
    points = finder.locate(faces).flatten(1).numpy()
    found = np.flatnonzero(np.isfinite(points).all(1))
    if not len(found):
        raise InputError("no mouth was found in any frame")
    filled = [np.interp(np.arange(len(points)), found, column[found]) for column in points.T]
    return measure(torch.from_numpy(np.stack(filled, axis=1)).float().unflatten(1, (POINTS, 2)))


def landmark_distance(points: Tensor, reference: Tensor) -> float:
    """LMD: mean distance of the points of two mouths, f 20 2 each, in their unit (Chen et al., ECCV 2018, without a normalisation)."""
    return float((points - reference).norm(dim=-1).mean())


def landmark_jitter(points: Tensor) -> float:
    """Mean length of the second difference along time of points f 20 2; 0 for fewer than three frames."""
    return float(points.diff(n=2, dim=0).norm(dim=-1).mean()) if len(points) > 2 else 0.0


def opening_follows(gap: Tensor, reference: Tensor) -> float | None:
    """Pearson's r of the measured and the reference opening along a clip, both n; None where the reference does not move."""
    return float(pearson(gap, reference)) if float(reference.std(correction=0)) > 0 else None


class SpeechRange(NamedTuple):
    """Readings of the opening between which lips move, in units of the face's side."""

    closed: float  # mean reading of lips that truly are closed
    low: float
    high: float

    def share(self, opening: np.ndarray) -> np.ndarray:
        """Openings as shares of the range, 0 where lips are closed."""
        return (opening - self.closed) / (self.high - self.low)


def speech_range(openings: np.ndarray, closed: np.ndarray) -> SpeechRange | None:
    """The range of pooled openings, and the reading of closed lips; None where lips were never closed, or nothing moved."""
    if not len(closed) or not len(openings):
        return None
    low, high = np.percentile(openings, SPEECH_SHARES)
    return SpeechRange(float(np.mean(closed)), float(low), float(high)) if high > low else None


class PairTally(NamedTuple):
    """How often SyncNet classified pairs of one moment and of two rightly."""

    pairs: int
    right: int
    right_shuffled: int  # ... had the labels been shuffled


def pair_accuracy(pictures: Tensor, audio: Tensor, num_frames: int, pairs: int, rng: np.random.Generator) -> PairTally:
    """Pairs drawn as in training from the windows of one clip, n d and m d: pictures beside the sound of the same or of another moment.

    Raises InputError where the clip is shorter than training takes.
    """
    frames = min(len(pictures), len(audio)) + num_frames - 1
    if frames < SYNCNET_LENGTHS * num_frames:
        raise InputError(f"A clip of {frames} frames is shorter than {SYNCNET_LENGTHS} windows of {num_frames}: measure longer clips")
    choices = [choose_syncnet(rng, frames, num_frames) for _ in range(pairs)]
    cosines = torch.stack([pictures[choice.pictures] @ audio[choice.sound] for choice in choices])
    in_sync, labels = (cosines > IN_SYNC).numpy(), np.array([choice.label for choice in choices], dtype=bool)
    return PairTally(pairs, int((in_sync == labels).sum()), int((in_sync == rng.permutation(labels)).sum()))


# Measurement

PAIRS_PER_CLIP = 40  # windows with right and wrong sound for SyncNet's accuracy, of each clip
ACCURACY_SEED = 42


class SyncMeasures(NamedTuple):
    """One video measured by one SyncNet."""

    old: SyncReading  # with the sound of the source
    new: SyncReading  # with the sound of the reference


@dataclass(frozen=True)
class VideoMeasures:
    """One of the videos of a pair."""

    syncnet: SyncMeasures
    second_syncnet: SyncMeasures | None
    opening: list[float]  # of the lips in each frame, units of the face's side
    opening_r: float | None  # Pearson's r with the known opening of the new words
    lmd: float  # distance of the mouth's landmarks from the reference's, units of the face's side
    appearance: float  # perceptual distance of the mouth from the reference
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
    syncnet_pairs: PairTally  # on source and reference, each with its own sound
    second_syncnet_pairs: PairTally | None
    closed: list[float]  # measured opening in frames of the reference whose lips are closed
    reference_r: float | None  # Pearson's r of the known openings of the old and of the new words
    landmark_error: float  # of what is found on the reference against the known points, units of the face's side
    videos: dict[str, VideoMeasures]  # one of each of VIDEOS


@dataclass(frozen=True)
class SilenceMeasures:
    """One person given silence."""

    name: str
    opening: list[float]  # of the generated lips
    source_opening: list[float]  # of the source's lips


@dataclass(frozen=True)
class HeadsMeter:
    """The networks that measure, and how."""

    resolution: int  # side in pixels of the aligned faces that everything is measured on
    syncnet: SyncMeter  # that the denoiser was trained with
    second_syncnet: SyncMeter | None  # that it was not trained with
    points: PointFinder
    appearance: Appearance  # perceptual distance of mouths
    device: torch.device | str = "cpu"  # of the last two

    def faces(self, pair: RenderedPair, generated: Path) -> dict[str, Tensor]:
        """Aligned faces uint8 f h w 3 of all VIDEOS, cut by the source's transforms. InputError: a video cannot be read or is too short."""
        paths, matrices = (generated, pair.video, pair.reference), self._matrices(pair)
        return {name: aligned_faces(path, matrices, self.resolution) for name, path in zip(VIDEOS, paths, strict=True)}

    def measure(self, pair: RenderedPair, number: int, generated: Path, generated_share: float) -> PairMeasures:
        """Measure one pair; `number` seeds what is drawn by chance. Raises InputError as `faces`, and where a clip is too short."""
        faces, mels = self.faces(pair, generated), (clip_mel(pair.video), clip_mel(pair.reference))
        syncnet, syncnet_pairs = measure_sync(self.syncnet, faces, *mels, number)
        second, second_pairs = ({}, None) if self.second_syncnet is None else measure_sync(self.second_syncnet, faces, *mels, number)
        landmarks = {name: read_mouths(self.points, part) for name, part in faces.items()}
        true_faces, true_mouths = faces["reference"], landmarks["reference"]
        old, new, frames = read_labels(pair.video), read_labels(pair.reference), len(true_faces)
        gap, points = new.lip_gap[:frames], mouth_points(new.landmarks[:frames], self._matrices(pair), self.resolution)
        videos = {}
        for name, part in faces.items():
            mouth, pixels = landmarks[name], pixel_difference(part, true_faces)
            videos[name] = VideoMeasures(
                syncnet=syncnet[name],
                second_syncnet=second.get(name),
                opening=mouth.gap.tolist(),
                opening_r=opening_follows(mouth.gap, gap),
                lmd=landmark_distance(mouth.points, true_mouths.points),
                appearance=appearance_distance(self.appearance.distance, part, true_faces, self.device),
                l1=pixels.l1,
                psnr=pixels.psnr,
                landmark_jitter=landmark_jitter(mouth.points),
                pixel_jitter=pixel_jitter(part),
            )
        return PairMeasures(
            name=pair.name,
            frames=frames,
            generated_share=generated_share,
            syncnet_pairs=syncnet_pairs,
            second_syncnet_pairs=second_pairs,
            closed=true_mouths.gap[gap < CLOSED_CM].tolist(),
            reference_r=opening_follows(old.lip_gap[:frames], gap),
            landmark_error=landmark_distance(true_mouths.points, points),
            videos=videos,
        )

    def measure_silence(self, pair: RenderedPair, generated: Path) -> SilenceMeasures:
        """Measure the result of silence. Raises InputError: a video cannot be decoded or is too short."""
        matrices = align_known(read_labels(pair.video).landmarks, self.resolution)
        faces = (aligned_faces(video, matrices, self.resolution) for video in (generated, pair.video))
        return SilenceMeasures(pair.name, *(read_mouths(self.points, part).gap.tolist() for part in faces))

    def _matrices(self, pair: RenderedPair) -> Tensor:
        """Transforms of the frames that both clips of a pair have, from the source's landmarks: n 2 3."""
        landmarks, frames = read_labels(pair.video).landmarks, len(read_labels(pair.reference).landmarks)
        return align_known(landmarks[:frames], self.resolution)


def measure_sync(
    meter: SyncMeter, faces: Mapping[str, Tensor], old: Tensor, new: Tensor, number: int
) -> tuple[dict[str, SyncMeasures], PairTally]:
    """Offset and confidence of all videos with old and new sound (mels 80 t); accuracy on the two real ones."""
    audio_old, audio_new = meter.embed_audio(old), meter.embed_audio(new)
    windows = {name: meter.embed_faces(part) for name, part in faces.items()}
    tallies = [
        pair_accuracy(windows[name], audio, meter.num_frames, PAIRS_PER_CLIP, generator(ACCURACY_SEED, 2 * number + side))
        for side, (name, audio) in enumerate((("source", audio_old), ("reference", audio_new)))
    ]
    readings = {name: SyncMeasures(compare(part, audio_old), compare(part, audio_new)) for name, part in windows.items()}
    return readings, PairTally(*(sum(values) for values in zip(*tallies, strict=True)))


# Table of results

PERCENT, PLAIN = "percent", "plain"
PEAK = 95  # percentile that stands for the widest opening
HEADER = ("measure", "aim", "measured", "met", "source unchanged (control)", "reference render", "cases")
ANSWERS = {True: "yes", False: "**no**", None: NONE}


class Aim(NamedTuple):
    """What a value should be: at least, at most, below, or that its interval holds the limit ("about")."""

    relation: str  # ">=", "<=", "<" or "about"
    limit: float

    def met(self, found: Estimate | None) -> bool | None:
        """Whether the measured value is as it should be; None where it was not measured or one clip tells nothing."""
        if found is None or (self.relation == "about" and found.low is None):
            return None
        if self.relation == "about":
            return bool(found.low <= self.limit <= found.high)
        return bool({">=": np.greater_equal, "<=": np.less_equal, "<": np.less}[self.relation](found.value, self.limit))


@dataclass(frozen=True)
class TableRow:
    """One measure."""

    name: str
    measured: Estimate | None
    source: Estimate | None = None  # of the source unchanged, which must miss the aim
    reference: Estimate | None = None
    aim: Aim | None = None
    control: Aim | None = None  # what the source unchanged is to show
    unit: str = PLAIN

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None where there is none, or nothing was measured."""
        return None if self.aim is None else self.aim.met(self.measured)

    @property
    def control_met(self) -> bool | None:
        """Whether the control fails as it must."""
        return None if self.control is None else self.control.met(self.source)

    def cells(self) -> tuple[str, ...]:
        """The row of the table, one text for each of HEADER."""
        control = _cell(self.source, self.unit)
        if self.control is not None and self.source is not None:
            control += f"; must be {_aim(self.control, self.unit)}: {ANSWERS[self.control_met]}"
        measured, count = _cell(self.measured, self.unit), NONE if self.measured is None else str(self.measured.count)
        return self.name, _aim(self.aim, self.unit), measured, ANSWERS[self.met], control, _cell(self.reference, self.unit), count


def _aim(aim: Aim | None, unit: str) -> str:
    return NONE if aim is None else f"{aim.relation} {_number(aim.limit, unit)}"


def _cell(found: Estimate | None, unit: str) -> str:
    if found is None:
        return NONE
    interval = "" if found.low is None or found.high is None else f" ({_number(found.low, unit)} to {_number(found.high, unit)})"
    return _number(found.value, unit) + interval


def _number(value: float, unit: str) -> str:
    shown = 100 * value if unit == PERCENT else value
    text = f"{shown:.0f}" if abs(shown) >= 100 else f"{shown:.3g}"
    return f"{text} %" if unit == PERCENT else text


def make_rows(pairs: Sequence[PairMeasures], silence: Sequence[SilenceMeasures], appearance: str) -> list[TableRow]:
    """All rows; `appearance` names the perceptual distance."""
    old_offset, new_offset = "SyncNet of the training: offset 0 to the old sound", "SyncNet of the training: offset 0 to the new sound"
    opening, known = (
        "lip opening against the known one, Pearson r within a clip",
        "... of the old words against the new (best possible control)",
    )
    jitter = "jitter of the mouth's landmarks, share of the reference's", "jitter of the mouth box's pixels, share of the reference's"
    return [
        *_accuracy(pairs),
        _each(pairs, old_offset, share, lambda v: v.syncnet.old.offset == 0, Aim("<", 0.2), None, PERCENT),
        _each(pairs, new_offset, share, lambda v: v.syncnet.new.offset == 0, Aim(">=", 0.95), Aim("<", 0.2), PERCENT),
        _each(pairs, opening, mean, lambda v: v.opening_r, Aim(">=", 0.9), Aim("<", 0.3)),
        TableRow(known, mean([pair.reference_r for pair in pairs])),
        *_second_syncnet(pairs),
        *_mouths(pairs, appearance),
        *_silence(pairs, silence),
        _against(pairs, jitter[0], lambda v: v.landmark_jitter, "reference", Aim("<=", 1.2)),
        _against(pairs, jitter[1], lambda v: v.pixel_jitter, "reference", Aim("<=", 1.2)),
    ]


def _each(
    pairs: Sequence[PairMeasures],
    name: str,
    estimate: Callable[[list], Estimate | None],
    of: Callable[[VideoMeasures], float | bool | None],
    aim: Aim | None = None,
    control: Aim | None = None,
    unit: str = PLAIN,
) -> TableRow:
    """The same estimate of all three videos."""
    found = [estimate([of(pair.videos[kind]) for pair in pairs]) for kind in VIDEOS]
    return TableRow(name, *found, aim=aim, control=control, unit=unit)


def _against(
    pairs: Sequence[PairMeasures],
    name: str,
    of: Callable[[VideoMeasures], float],
    base: str,
    aim: Aim | None,
    control: Aim | None = None,
) -> TableRow:
    """Values of all three videos as a share of those of one of them, ratio of the means."""
    below = [of(pair.videos[base]) for pair in pairs]
    found = [None if kind == base else ratio([of(pair.videos[kind]) for pair in pairs], below) for kind in VIDEOS]
    return TableRow(name, *found, aim=aim, control=control, unit=PERCENT)


def _accuracy(pairs: Sequence[PairMeasures]) -> list[TableRow]:
    """SyncNet on real renders: the measured value is the accuracy itself, the control is the same with shuffled labels."""
    second = [pair.second_syncnet_pairs for pair in pairs if pair.second_syncnet_pairs]
    rows = []
    for net, tallies, aim in (("SyncNet", [pair.syncnet_pairs for pair in pairs], Aim(">=", 0.94)), ("second SyncNet", second, None)):
        below = [tally.pairs for tally in tallies]
        right, shuffled = ratio([tally.right for tally in tallies], below), ratio([tally.right_shuffled for tally in tallies], below)
        rows.append(TableRow(f"accuracy of the {net} on renders of unseen people and voices", right, aim=aim, unit=PERCENT))
        rows.append(TableRow(f"... of the {net} with shuffled labels (control)", shuffled, aim=Aim("about", 0.5), unit=PERCENT))
    return rows


def _second_syncnet(pairs: Sequence[PairMeasures]) -> list[TableRow]:
    pairs = [pair for pair in pairs if pair.second_syncnet_pairs is not None]
    near, sure = "second SyncNet: offset of one frame at most", "second SyncNet: confidence, share of the reference's"
    return [
        _each(
            pairs, "second SyncNet: offset 0", share, lambda v: v.second_syncnet.new.offset == 0, Aim(">=", 0.95), Aim("<", 0.2), PERCENT
        ),
        _each(pairs, near, share, lambda v: abs(v.second_syncnet.new.offset) <= 1, Aim(">=", 1.0), None, PERCENT),
        _against(pairs, sure, lambda v: v.second_syncnet.new.confidence, "reference", Aim(">=", 0.9), Aim("<", 0.25)),
        _each(pairs, "second SyncNet: confidence", mean, lambda v: v.second_syncnet.new.confidence),
    ]


def _mouths(pairs: Sequence[PairMeasures], appearance: str) -> list[TableRow]:
    error = "... error of the landmarks found on reference renders"
    return [
        _against(pairs, "LMD of the mouth, share of the source's", lambda v: v.lmd, "source", Aim("<=", 0.25)),
        _each(pairs, "LMD of the mouth, share of the face's side", mean, lambda v: v.lmd, unit=PERCENT),
        TableRow(error, mean([pair.landmark_error for pair in pairs]), unit=PERCENT),
        _against(pairs, f"{appearance}: share of the source's", lambda v: v.appearance, "source", Aim("<=", 0.5)),
        _each(pairs, f"{appearance}", mean, lambda v: v.appearance),
        _against(pairs, "mouth box: mean absolute difference, share of the source's", lambda v: v.l1, "source", None),
        _each(pairs, "mouth box: mean absolute difference, grey levels", mean, lambda v: v.l1),
        _each(pairs, "mouth box: PSNR, dB", mean, lambda v: v.psnr),
    ]


def _silence(pairs: Sequence[PairMeasures], silence: Sequence[SilenceMeasures]) -> list[TableRow]:
    span = heads_speech_range(pairs)
    if span is None or not silence:
        return [TableRow("silence: lip opening", None, aim=Aim("<=", 0.1), unit=PERCENT)]
    before = [span.share(np.array(one.source_opening)) for one in silence]
    after = [span.share(np.array(one.opening)) for one in silence]

    def row(name: str, statistic: Callable[[np.ndarray], float], aim: Aim | None) -> TableRow:
        generated, source = (
            bootstrap(lambda chosen, of=of: float(statistic(np.concatenate([of[clip] for clip in chosen]))), len(of))
            for of in (after, before)
        )
        return TableRow(name, generated, source, aim=aim, unit=PERCENT)

    low, high = SPEECH_SHARES
    name = f"silence: lip opening, share of the speech range ({low}th to {high}th percentile of generated speech)"
    return [row(f"{name}, mean", np.mean, Aim("<=", 0.1)), row(f"... {PEAK}th percentile", lambda part: np.percentile(part, PEAK), None)]


def heads_speech_range(pairs: Sequence[PairMeasures]) -> SpeechRange | None:
    """Between which openings generated lips move, over all clips."""
    openings = [np.array(pair.videos["generated"].opening) for pair in pairs]
    return speech_range(np.concatenate(openings), np.concatenate([np.array(pair.closed) for pair in pairs])) if openings else None


# Figure: the best, the worst and two other clips

MOMENTS = 8
CLIPS = 4
ROWS = ("source", "generated", "reference")
_TITLE = 24  # rows of pixels
_INK, _PAPER = (20, 20, 20), 245


def chosen_clips(pairs: Sequence[PairMeasures]) -> dict[int, str]:
    """Which clips are shown, by index, and why: the worst and the best by LMD, and two between them at a third and at two thirds."""
    order = sorted(range(len(pairs)), key=lambda index: -pairs[index].videos["generated"].lmd)
    places = np.linspace(0, len(order) - 1, min(CLIPS, len(order))).round().astype(int).tolist()
    words = {0: "worst", len(order) - 1: "best"} if len(order) > 1 else {0: "the only one"}
    return {order[place]: words.get(place, f"place {place + 1} of {len(order)} from the worst") for place in places}


def write_figure(
    pairs: Mapping[str, RenderedPair], measured: Sequence[PairMeasures], videos: "GeneratedVideos", meter: HeadsMeter, path: Path
) -> None:
    """Write aligned faces of some clips as a picture: for each a title above three rows of MOMENTS faces. Raises OutputError."""
    blocks = []
    for index, why in chosen_clips(measured).items():
        found = measured[index]
        pair, lmd, before = pairs[found.name], found.videos["generated"].lmd, found.videos["source"].lmd
        share_of_source = 100 * lmd / before if before else 0.0
        title = f"{pair.name} ({why}): LMD {100 * lmd:.2f} % of the face, {share_of_source:.0f} % of the source's; rows: {', '.join(ROWS)}"
        faces = meter.faces(pair, videos.generate(pair.name, pair.video, pair.reference))
        moments = np.linspace(0, found.frames - 1, MOMENTS).round().astype(int)
        rows = [np.hstack(list(faces[name][moments].numpy())) for name in ROWS]
        head = np.full((_TITLE, rows[0].shape[1], 3), _PAPER, np.uint8)
        cv2.putText(head, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
        blocks += [head, *rows]
    with staged(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(np.vstack(blocks), cv2.COLOR_RGB2BGR)):
            raise OutputError(f"cannot write {path}: free some space and run the same command again")


# Results and files


def make_notes(settings: Mapping[str, Any], pairs: Sequence[PairMeasures], failed: Mapping[str, str]) -> list[str]:
    """Notes below the table; `failed`: clip -> why it could not be measured."""
    count, steps, scale = len(pairs) + len(failed), settings["inference_steps"], settings["guidance_scale"]
    unpainted = [pair.name for pair in pairs if pair.generated_share < 1]
    notes = [
        f"{len(pairs)} of {count} clips measured, {sum(pair.frames for pair in pairs)} frames; {steps} steps, "
        f"guidance {scale:g}, faces of {settings['resolution']} px.",
        "In brackets: 95 % intervals, Wilson's for offsets, the bootstrap over clips otherwise. The value itself meets an aim or not.",
        "Offset and confidence: the sound is moved by -15 to 15 frames; the mean cosine of all windows says where it fits best (0 = in "
        "place) and by how much that exceeds the median of the 31 places.",
    ]
    if unpainted:
        notes.append(f"In {len(unpainted)} clips some frames were left as they are, such as {unpainted[0]}.")
    if failed:
        first = next(iter(failed))
        notes.append(f"{len(failed)} clips could not be measured; the first was {first}: {failed[first]}")
    return notes


# Command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.evaluate",
        description="Generate rendered people with other audio and compare the result with the source and with the reference render. "
        "Writes results.json, results.md and figure.png; prints the table.",
        epilog="Run the same command again to resume: generated videos are kept in OUTPUT_DIR/generated. "
        "Exit codes: 0 done, 1 failed, 2 unusable input, 130 interrupted.",
    )
    group = parser.add_argument_group("inputs, output and networks of the metrics")
    group.add_argument("--clips", type=Path, required=True, help="folder of rendered pairs of unseen people (--pairs --split test)")
    group.add_argument("--output_dir", type=Path, required=True, help="folder of results and generated videos")
    group.add_argument("--limit", type=int, help="only the first LIMIT pairs")
    group.add_argument("--silent_clips", type=int, default=6, metavar="N", help="clips that are also given silence (default %(default)s)")
    group.add_argument("--syncnet_config", type=Path, required=True, help="YAML of the SyncNet that the denoiser was trained with")
    group.add_argument("--syncnet", type=Path, required=True, help="its weights")
    group.add_argument("--second_syncnet_config", type=Path, help="YAML of a SyncNet not used in training; its rows stay empty without")
    group.add_argument("--second_syncnet", type=Path, help="its weights")
    group.add_argument(
        "--landmark_network",
        type=Path,
        help="a landmark network that was not trained with (default: face-alignment, or FaceMesh)",
    )
    group.add_argument("--vgg16", type=Path, help="torchvision's VGG-16 for LPIPS (default: that in checkpoints/, or EfficientNet-Lite0)")
    add_model_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="print the traceback of an unexpected error")
    return parser.parse_intermixed_args(arguments)


def open_meter(parsed: argparse.Namespace, resolution: int, vgg16: Path | None) -> HeadsMeter:
    """The networks that measure. Raises InputError, ConfigError, WeightsError."""
    from latentsync.pipelines.build import ROOT, resolve_device
    from latentsync.sync_meter import load_sync_meter
    from latentsync.weights import CHECKPOINTS

    device = resolve_device(parsed.device)
    syncnet = load_sync_meter(parsed.syncnet_config, parsed.syncnet, device)
    second = None if parsed.second_syncnet is None else load_sync_meter(parsed.second_syncnet_config, parsed.second_syncnet, device)
    points = build_points(ROOT / CHECKPOINTS, parsed.landmark_network, device)
    return HeadsMeter(resolution, syncnet, second, points, make_appearance(vgg16, device), device)


def measure_all(
    pairs: Sequence[RenderedPair], silent: int, videos: "GeneratedVideos", meter: HeadsMeter
) -> tuple[list[PairMeasures], list[SilenceMeasures], dict[str, str]]:
    """Pairs, silence, and which clips could not be measured and why. Raises InputError where none could."""
    measured, silence, failed = [], [], {}
    for number, pair in enumerate(pairs):
        logger.info("%s (%d of %d)", pair.name, number + 1, len(pairs))
        try:
            generated = videos.generate(pair.name, pair.video, pair.reference)
            measured.append(meter.measure(pair, number, generated, generated_share(videos, pair.name)))
            if len(silence) < silent:
                generated = generate_silent(videos, f"{pair.name}_silence", pair.video, len(read_labels(pair.video).landmarks))
                silence.append(meter.measure_silence(pair, generated))
        except (ConfigError, WeightsError):
            raise  # of every clip alike
        except InputError as error:
            logger.warning("%s is left out: %s", pair.name, error)
            failed[pair.name] = str(error)
    if not measured:
        raise InputError(f"Not one of {len(pairs)} clips could be measured, the last because: {failed[pairs[-1].name]}")
    return measured, silence, failed


def run(parsed: argparse.Namespace) -> None:
    """Do what the command line says."""
    from eval.cases import checksums, find_model
    from latentsync.pipelines.build import ROOT
    from latentsync.pipelines.options import LipsyncOptions
    from latentsync.weights import CHECKPOINTS, find_weights

    if (parsed.second_syncnet is None) != (parsed.second_syncnet_config is None):
        raise InputError(
            "A SyncNet is a configuration and its weights: give both --second_syncnet_config and --second_syncnet, or neither."
        )
    pairs = find_pairs(parsed.clips, parsed.limit)
    splits = sorted({read_labels(pair.video).split for pair in pairs})
    if splits != ["test"]:
        logger.warning("These clips are of %s: people that the model may have been trained on.", ", ".join(splits))
    named = (parsed.unet_config_path, parsed.inference_ckpt_path, parsed.vae_path, parsed.whisper_path)
    chosen = {option.name: getattr(parsed, option.name) for option in fields(LipsyncOptions) if option.name in parsed}
    options = LipsyncOptions(**chosen, length="video")
    model = find_model(named, parsed.overrides, parsed.detector, parsed.device, parsed.dtype, options)
    vgg16 = parsed.vgg16 or find_weights("vgg16", ROOT / CHECKPOINTS)
    files = {name: getattr(parsed, name) for name in ("syncnet", "second_syncnet", "landmark_network")} | {"vgg16": vgg16}
    weights = {**model.weights, **checksums({name: path for name, path in files.items() if path is not None})}
    meter, videos = open_meter(parsed, model.config.data.resolution, vgg16), model.videos(parsed.output_dir / "generated")
    measured, silence, failed = measure_all(pairs, parsed.silent_clips, videos, meter)
    settings = {**model.settings(), "splits": splits, "syncnet_config": str(parsed.syncnet_config), "silence": len(silence)}
    rows = make_rows(measured, silence, meter.appearance.name)
    content = {
        "settings": settings,
        "weights": weights,  # SHA-256 of each file that took part
        "appearance": meter.appearance.name,
        "rows": [{**json_value(row), "met": row.met, "control_met": row.control_met} for row in rows],
        "speech_range": json_value(heads_speech_range(measured)),
        "failed": failed,
        "clips": json_value(measured),
        "silence": json_value(silence),
    }
    write_json(parsed.output_dir / "results.json", content)
    table = "\n\n".join([markdown_table(HEADER, (row.cells() for row in rows)), *make_notes(settings, measured, failed)]) + "\n"
    write_text(parsed.output_dir / "results.md", table)
    write_figure({pair.name: pair for pair in pairs}, measured, videos, meter, parsed.output_dir / "figure.png")
    print(table, end="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: settings of the process, and every failure in one sentence."""
    parsed = parse_arguments(arguments)
    again = "the same command goes on with the clip that was in work."
    return run_command(lambda: run(parsed), "eval", again, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
