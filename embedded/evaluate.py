"""Evaluation of a model on rendered people with known landmarks, with controls that must fail: `python -m embedded.evaluate --help`."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from eval.estimates import Estimate, bootstrap, json_value, mean, ratio, share
from eval.inference_videos import add_model_arguments
from eval.metrics.image import Appearance, appearance_distance, pixel_difference, pixel_jitter
from eval.metrics.lips import (
    CLOSED_CM,
    SPEECH_SHARES,
    SpeechRange,
    landmark_distance,
    landmark_jitter,
    opening_follows,
    read_mouths,
    speech_range,
)
from eval.metrics.sync import PairTally, SyncMeter, SyncReading, compare, pair_accuracy
from latentsync.cli import run_command
from latentsync.data.clip_index import PAIR_SUFFIX, counterpart_path, sidecar
from latentsync.data.sampling import generator
from latentsync.errors import ConfigError, InputError, OutputError, WeightsError
from latentsync.faces.alignment import align_known, on_face, warp_faces
from latentsync.media.audio import read_audio
from latentsync.media.files import staged, walk_media, write_json, write_text
from latentsync.media.video_reader import VideoReader
from latentsync.mel import log_mel
from latentsync.models.landmark_network import FIRST_POINT, POINTS, LandmarkNetwork

if TYPE_CHECKING:
    from eval.cases import GeneratedVideos

_ADVICE = "render pairs with `python -m embedded.talking_heads clips --pairs --split test`"


logger = logging.getLogger("eval")

# Data: rendered pairs and their aligned faces


@dataclass(frozen=True)
class RenderedPair:
    """Two clips of one person."""

    name: str  # the clip's path below its folder, without an extension
    video: Path  # the source
    twin: Path  # the reference: the words to be said, and the render of them


@dataclass(frozen=True)
class RenderedLabels:
    """Landmarks and lip openings of a clip, frame by frame."""

    landmarks: np.ndarray  # n 68 2, pixels; 0 = outer edge of the first pixel
    lip_gap: Tensor  # n, centimetres
    split: str  # to which people and sentences it belongs: train, validation, test

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.landmarks)


def find_pairs(folder: Path, limit: int | None = None) -> list[RenderedPair]:
    """The pairs below a folder, by name, the first `limit` of them. Raises InputError where there is none."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit is {limit}: give 1 or more, or leave it out")
    videos = (path for path in walk_media(folder, {".mp4"}) if not path.stem.endswith(PAIR_SUFFIX))
    names = ((path, counterpart_path(path)) for path in videos)
    pairs = [RenderedPair(str(path.relative_to(folder).with_suffix("")), path, other) for path, other in names if other.is_file()]
    if not pairs:
        raise InputError(f"{folder} holds no clip with a twin (*{PAIR_SUFFIX}.mp4): {_ADVICE}")
    return pairs[:limit]


def read_labels(clip: Path) -> RenderedLabels:
    """Landmarks and lips of a rendered clip. Raises InputError where they are missing or incomplete."""
    path = sidecar(clip)
    try:
        content = json.loads(path.read_bytes())
        landmarks = np.asarray(content["landmarks"], dtype=np.float64)
        gap = torch.tensor(content["lip_gap_cm"], dtype=torch.float64)
        split = str(content.get("plan", {}).get("split", "unknown"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no landmarks and lips ({type(error).__name__}): {_ADVICE}") from None
    if landmarks.shape[1:] != (68, 2) or not len(landmarks) or gap.shape != landmarks.shape[:1] or not np.isfinite(landmarks).all():
        raise InputError(f"{path} does not hold 68 landmarks and the lips of each frame: {_ADVICE}")
    return RenderedLabels(landmarks, gap, split)


def mouth_points(landmarks: np.ndarray, matrices: Tensor, resolution: int) -> Tensor:
    """The mouth among landmarks n 68 2, on the aligned faces: float32 n 20 2 in units of the face's side."""
    mouth = landmarks[:, FIRST_POINT : FIRST_POINT + POINTS]
    return torch.from_numpy((on_face(mouth, matrices.numpy(), resolution) + 0.5) / np.float32(resolution))


def aligned_faces(video: Path, matrices: Tensor, resolution: int) -> Tensor:
    """Faces of a video by given transforms n 2 3: uint8 n h w 3; the pictures are decoded one by one. InputError: it has fewer frames."""
    frames: Iterator[np.ndarray] = VideoReader(video).frames(0, len(matrices))
    faces = [warp_faces([frame], matrices[k : k + 1], resolution)[0] for k, frame in enumerate(frames)]
    if len(faces) < len(matrices):
        raise InputError(f"{video} has {len(faces)} frames and its clip {len(matrices)}: delete it, so that it is made again")
    return torch.stack(faces)


def clip_mel(clip: Path) -> Tensor:
    """Log-mel of a clip for SyncNet: float32 80 t. Raises InputError."""
    samples = read_audio(clip)
    if not len(samples):
        raise InputError(f"{clip} holds no sound: {_ADVICE}")
    return log_mel(samples).float()


# Measurement

PAIRS_PER_CLIP = 40  # windows with right and wrong sound for SyncNet's accuracy, of each clip
ACCURACY_SEED = 42
_T = TypeVar("_T")
_Other = TypeVar("_Other")


@dataclass(frozen=True)
class Trio(Generic[_T]):
    """The same of all three videos of a pair."""

    generated: _T
    source: _T  # unchanged
    true: _T  # the reference render of the new words

    def map(self, change: Callable[[_T], _Other]) -> "Trio[_Other]":
        """Apply a function to all three."""
        return Trio(change(self.generated), change(self.source), change(self.true))


@dataclass(frozen=True)
class SyncMeasures:
    """One video measured by one SyncNet."""

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
    appearance: float  # perceptual distance of the mouth from the true render
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
    closed: list[float]  # measured opening in frames of the true render whose lips are closed
    truth_r: float | None  # Pearson's r of the true openings of the old and of the new words
    reader_error: float  # error of the landmark network on the true render, units of the face's side
    videos: Trio[VideoMeasures]


@dataclass(frozen=True)
class SilenceMeasures:
    """One person given silence."""

    name: str
    opening: list[float]  # of the generated lips
    source_opening: list[float]  # of the source's lips


class HeadsMeter:
    """The networks that measure, and how.

    Args:
        resolution: side in pixels of the aligned faces that everything is measured on.
        syncnet: the one that the denoiser was trained with.
        judge: one that it was not trained with.
        reader: the landmark network.
        appearance: perceptual distance of mouths.
        device: of reader and appearance.
    """

    def __init__(
        self,
        resolution: int,
        syncnet: SyncMeter,
        judge: SyncMeter | None,
        reader: LandmarkNetwork,
        appearance: Appearance,
        device: torch.device | str = "cpu",
    ) -> None:
        self.resolution = resolution
        self.syncnet, self.judge = syncnet, judge
        self.reader, self.appearance, self.device = reader, appearance, device

    def faces(self, pair: RenderedPair, generated: Path) -> Trio[Tensor]:
        """Aligned faces uint8 f h w 3, all cut by the transforms of the source. InputError: a video cannot be decoded or is too short."""
        matrices = self._matrices(pair)
        return Trio(generated, pair.video, pair.twin).map(lambda video: aligned_faces(video, matrices, self.resolution))

    def measure(self, pair: RenderedPair, number: int, generated: Path, generated_share: float) -> PairMeasures:
        """Measure one pair; `number` seeds what is drawn by chance. Raises InputError as `faces`, and where a clip is too short."""
        faces = self.faces(pair, generated)
        mels = clip_mel(pair.video), clip_mel(pair.twin)
        syncnet, syncnet_pairs = measure_sync(self.syncnet, faces, *mels, number)
        judge, judge_pairs = (Trio(None, None, None), None) if self.judge is None else measure_sync(self.judge, faces, *mels, number)
        mouths = faces.map(lambda part: read_mouths(self.reader, part))
        old, new, frames = read_labels(pair.video), read_labels(pair.twin), len(faces.true)
        gap, points = new.lip_gap[:frames], mouth_points(new.landmarks[:frames], self._matrices(pair), self.resolution)

        def of(name: str) -> VideoMeasures:
            part, mouth = getattr(faces, name), getattr(mouths, name)
            pixels = pixel_difference(part, faces.true)
            return VideoMeasures(
                syncnet=getattr(syncnet, name),
                judge=getattr(judge, name),
                opening=mouth.gap.tolist(),
                opening_r=opening_follows(mouth.gap, gap),
                lmd=landmark_distance(mouth.points, mouths.true.points),
                appearance=appearance_distance(self.appearance, part, faces.true, self.device),
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
            judge_pairs=judge_pairs,
            closed=mouths.true.gap[gap < CLOSED_CM].tolist(),
            truth_r=opening_follows(old.lip_gap[:frames], gap),
            reader_error=landmark_distance(mouths.true.points, points),
            videos=Trio("generated", "source", "true").map(of),
        )

    def measure_silence(self, pair: RenderedPair, generated: Path) -> SilenceMeasures:
        """Measure the result of silence. Raises InputError: a video cannot be decoded or is too short."""
        matrices = align_known(read_labels(pair.video).landmarks, self.resolution)
        generated_gap, source_gap = (
            read_mouths(self.reader, aligned_faces(video, matrices, self.resolution)).gap.tolist() for video in (generated, pair.video)
        )
        return SilenceMeasures(pair.name, generated_gap, source_gap)

    def _matrices(self, pair: RenderedPair) -> Tensor:
        """Transforms of the frames that both clips of a pair have, from the source's truth: n 2 3."""
        landmarks, frames = read_labels(pair.video).landmarks, len(read_labels(pair.twin))
        return align_known(landmarks[:frames], self.resolution)


def measure_sync(meter: SyncMeter, faces: Trio[Tensor], old: Tensor, new: Tensor, number: int) -> tuple[Trio[SyncMeasures], PairTally]:
    """Offset and confidence of all three videos with old and new sound (mels 80 t); accuracy on the two real ones."""
    audio_old, audio_new = meter.embed_audio(old), meter.embed_audio(new)
    seen = faces.map(meter.embed_faces)
    tallies = [
        pair_accuracy(windows, audio, meter.num_frames, PAIRS_PER_CLIP, generator(ACCURACY_SEED, 2 * number + side))
        for side, (windows, audio) in enumerate(((seen.source, audio_old), (seen.true, audio_new)))
    ]
    readings = seen.map(lambda windows: SyncMeasures(compare(windows, audio_old), compare(windows, audio_new)))
    return readings, PairTally(*(sum(values) for values in zip(*tallies, strict=True)))


# Table of results

PERCENT, PLAIN = "percent", "plain"
NOT_MEASURED = "-"
VIDEOS = ("generated", "source", "true")
PEAK = 95  # percentile that stands for the widest opening


class Aim(NamedTuple):
    """What a value should be: at least, at most, below, or that its interval holds the limit ("about")."""

    relation: str  # ">=", "<=", "<" or "about"
    limit: float

    def met(self, found: Estimate | None) -> bool | None:
        """Whether the measured value is as it should be; None where it was not measured or one clip tells nothing."""
        if found is None or (self.relation == "about" and found.low is None):
            return None
        tests = {
            ">=": found.value >= self.limit,
            "<=": found.value <= self.limit,
            "<": found.value < self.limit,
            "about": found.low is not None and found.low <= self.limit <= found.high,
        }
        return bool(tests[self.relation])


@dataclass(frozen=True)
class TableRow:
    """One measure."""

    name: str
    measured: Estimate | None
    source: Estimate | None = None  # of the source unchanged, which must miss the aim
    true: Estimate | None = None  # of the true render
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


def make_rows(pairs: Sequence[PairMeasures], silence: Sequence[SilenceMeasures], appearance: str) -> list[TableRow]:
    """All rows; `appearance` names the perceptual distance."""
    old_offset, new_offset = "SyncNet of the training: offset 0 to the old sound", "SyncNet of the training: offset 0 to the new sound"
    return [
        *_accuracy(pairs),
        _each(pairs, old_offset, share, lambda v: v.syncnet.old.offset == 0, Aim("<", 0.2), None, PERCENT),
        _each(pairs, new_offset, share, lambda v: v.syncnet.new.offset == 0, Aim(">=", 0.95), Aim("<", 0.2), PERCENT),
        _each(pairs, "lip opening against the truth, Pearson r within a clip", mean, lambda v: v.opening_r, Aim(">=", 0.9), Aim("<", 0.3)),
        TableRow(
            "... of the old words' truth against the new words' (what the control can be at best)", mean([pair.truth_r for pair in pairs])
        ),
        *_sync_with_judge(pairs),
        *_mouths(pairs, appearance),
        *_silence(pairs, silence),
        _against(pairs, "jitter of the mouth's landmarks, share of the true render's", lambda v: v.landmark_jitter, "true", Aim("<=", 1.2)),
        _against(pairs, "jitter of the mouth box's pixels, share of the true render's", lambda v: v.pixel_jitter, "true", Aim("<=", 1.2)),
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
    found = [estimate([of(getattr(pair.videos, kind)) for pair in pairs]) for kind in VIDEOS]
    return TableRow(name, *found, aim=aim, control=control, unit=unit)


def _against(
    pairs: Sequence[PairMeasures],
    name: str,
    of: Callable[[VideoMeasures], float],
    reference: str,
    aim: Aim | None,
    control: Aim | None = None,
) -> TableRow:
    """Values of all three videos as a share of those of one of them, ratio of the means."""
    below = [of(getattr(pair.videos, reference)) for pair in pairs]
    found = [None if kind == reference else ratio([of(getattr(pair.videos, kind)) for pair in pairs], below) for kind in VIDEOS]
    return TableRow(name, *found, aim=aim, control=control, unit=PERCENT)


def _accuracy(pairs: Sequence[PairMeasures]) -> list[TableRow]:
    """SyncNet on real renders: the measured value is the accuracy itself, the control is the same with shuffled labels."""
    asked = {"SyncNet": [pair.syncnet_pairs for pair in pairs], "judge": [pair.judge_pairs for pair in pairs if pair.judge_pairs]}
    rows = []
    for net, tallies in asked.items():
        below = [tally.pairs for tally in tallies]
        right, shuffled = ratio([tally.right for tally in tallies], below), ratio([tally.right_shuffled for tally in tallies], below)
        aim = Aim(">=", 0.94) if net == "SyncNet" else None
        rows.append(TableRow(f"accuracy of the {net} on renders of unseen people and voices", right, aim=aim, unit=PERCENT))
        rows.append(TableRow(f"... of the {net} with shuffled labels (control)", shuffled, aim=Aim("about", 0.5), unit=PERCENT))
    return rows


def _sync_with_judge(pairs: Sequence[PairMeasures]) -> list[TableRow]:
    judged = [pair for pair in pairs if pair.videos.generated.judge is not None]

    def new(video: VideoMeasures) -> SyncMeasures:
        assert video.judge is not None
        return video.judge

    zero = _each(judged, "judge: offset 0", share, lambda v: new(v).new.offset == 0, Aim(">=", 0.95), Aim("<", 0.2), PERCENT)
    near = _each(judged, "judge: offset of one frame at most", share, lambda v: abs(new(v).new.offset) <= 1, Aim(">=", 1.0), None, PERCENT)
    sure = _against(
        judged, "judge: confidence, share of the true render's", lambda v: new(v).new.confidence, "true", Aim(">=", 0.9), Aim("<", 0.25)
    )
    return [zero, near, sure, _each(judged, "judge: confidence", mean, lambda v: new(v).new.confidence)]


def _mouths(pairs: Sequence[PairMeasures], appearance: str) -> list[TableRow]:
    return [
        _against(pairs, "LMD of the mouth, share of the source's", lambda v: v.lmd, "source", Aim("<=", 0.25)),
        _each(pairs, "LMD of the mouth, share of the face's side", mean, lambda v: v.lmd, unit=PERCENT),
        TableRow("... that the mouth reader itself is off on true renders", mean([pair.reader_error for pair in pairs]), unit=PERCENT),
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
    openings = [np.array(pair.videos.generated.opening) for pair in pairs]
    return speech_range(np.concatenate(openings), np.concatenate([np.array(pair.closed) for pair in pairs])) if openings else None


def to_markdown(rows: Sequence[TableRow], notes: Sequence[str]) -> str:
    """The table and its notes."""
    lines = ["| measure | aim | measured | met | source unchanged (control) | true render | cases |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        control = _cell(row.source, row.unit)
        if row.control is not None and row.source is not None:
            control += f"; must be {_aim(row.control, row.unit)}: {_word(row.control_met)}"
        count = NOT_MEASURED if row.measured is None else str(row.measured.count)
        cells = (
            row.name,
            _aim(row.aim, row.unit),
            _cell(row.measured, row.unit),
            _word(row.met),
            control,
            _cell(row.true, row.unit),
            count,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *notes]) + "\n"


def _word(met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: NOT_MEASURED}[met]


def _aim(aim: Aim | None, unit: str) -> str:
    return NOT_MEASURED if aim is None else f"{aim.relation} {_number(aim.limit, unit)}"


def _cell(found: Estimate | None, unit: str) -> str:
    if found is None:
        return NOT_MEASURED
    interval = "" if found.low is None or found.high is None else f" ({_number(found.low, unit)} to {_number(found.high, unit)})"
    return _number(found.value, unit) + interval


def _number(value: float, unit: str) -> str:
    shown = 100 * value if unit == PERCENT else value
    text = f"{shown:.0f}" if abs(shown) >= 100 else f"{shown:.3g}"
    return f"{text} %" if unit == PERCENT else text


# Figure: the best, the worst and two other clips

MOMENTS = 8
CLIPS = 4
ROWS = ("source", "generated", "true")
_TITLE = 24  # rows of pixels
_INK, _PAPER = (20, 20, 20), 245
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


def chosen_clips(pairs: Sequence[PairMeasures]) -> dict[int, str]:
    """Which clips are shown, by index, and why: the worst and the best by LMD, and two between them at a third and at two thirds."""
    order = sorted(range(len(pairs)), key=lambda index: -pairs[index].videos.generated.lmd)
    places = np.linspace(0, len(order) - 1, min(CLIPS, len(order))).round().astype(int).tolist()
    words = {0: "worst", len(order) - 1: "best"} if len(order) > 1 else {0: "the only one"}
    return {order[place]: words.get(place, f"place {place + 1} of {len(order)} from the worst") for place in places}


def clip_block(faces: Trio[Tensor], title: str) -> np.ndarray:
    """One clip: a title above three rows of MOMENTS faces; uint8 h w 3."""
    moments = np.linspace(0, len(faces.true) - 1, MOMENTS).round().astype(int)
    rows = [np.hstack(list(getattr(faces, name)[moments].numpy())) for name in ROWS]
    head = np.full((_TITLE, rows[0].shape[1], 3), _PAPER, np.uint8)
    cv2.putText(head, title, (6, 16), _FONT, _SIZE, _INK, 1, cv2.LINE_AA)
    return np.vstack([head, *rows])


# Results and files


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    settings: Mapping[str, Any]
    weights: Mapping[str, str]  # SHA-256 of each file that took part
    pairs: Sequence[PairMeasures]
    silence: Sequence[SilenceMeasures]
    failed: Mapping[str, str]  # clip -> why it could not be measured
    appearance: str  # name of the perceptual distance

    def notes(self) -> list[str]:
        """Notes below the table."""
        asked, steps, scale = len(self.pairs) + len(self.failed), self.settings["inference_steps"], self.settings["guidance_scale"]
        unpainted = [pair.name for pair in self.pairs if pair.generated_share < 1]
        notes = [
            f"{len(self.pairs)} of {asked} clips measured, {sum(pair.frames for pair in self.pairs)} frames; {steps} steps, "
            f"guidance {scale:g}, faces of {self.settings['resolution']} px.",
            "In brackets: 95 % intervals, Wilson's for offsets, the bootstrap over clips otherwise. The value itself meets an aim or not.",
            "Offset and confidence: the sound is moved by -15 to 15 frames; the mean cosine of all windows says where it fits best (0 = in "
            "place) and by how much that exceeds the median of the 31 places.",
        ]
        if unpainted:
            notes.append(f"In {len(unpainted)} clips some frames were left as they are, such as {unpainted[0]}.")
        if self.failed:
            first = next(iter(self.failed))
            notes.append(f"{len(self.failed)} clips could not be measured; the first was {first}: {self.failed[first]}")
        return [line for note in notes for line in (note, "")][:-1]

    def write(self, folder: Path) -> str:
        """Write results.json and results.md; the table. Raises OutputError."""
        rows = make_rows(self.pairs, self.silence, self.appearance)
        table = to_markdown(rows, self.notes())
        content = {
            "settings": self.settings,
            "weights": self.weights,
            "appearance": self.appearance,
            "rows": [{**json_value(row), "met": row.met, "control_met": row.control_met} for row in rows],
            "speech_range": json_value(heads_speech_range(self.pairs)),
            "failed": self.failed,
            "clips": json_value(self.pairs),
            "silence": json_value(self.silence),
        }
        write_json(folder / "results.json", content)
        write_text(folder / "results.md", table)
        return table


# Command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; wrong usage ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m embedded.evaluate",
        description="Give rendered people other words and compare the result with the source and the reference render of these words. "
        "Writes results.json, results.md and sheet.png; prints the table.",
        epilog="The same command goes on where it stopped: generated videos are kept in OUT/generated. "
        "Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted.",
    )
    add_measure_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected failure happened")
    return parser.parse_intermixed_args(arguments)


def add_measure_arguments(parser: argparse.ArgumentParser) -> None:
    """Data, networks and output."""
    group = parser.add_argument_group("what is measured, and by what")
    group.add_argument("--clips", type=Path, required=True, help="folder of rendered pairs of unseen people (--pairs --split test)")
    group.add_argument("--output_dir", type=Path, required=True, help="where results and generated videos go")
    group.add_argument("--limit", type=int, help="the first N pairs only")
    group.add_argument("--silence", type=int, default=6, metavar="N", help="clips that are also given silence (default %(default)s)")
    group.add_argument("--syncnet_config", type=Path, required=True, help="YAML of the SyncNet that the denoiser was trained with")
    group.add_argument("--syncnet", type=Path, required=True, help="its weights")
    group.add_argument("--judge_config", type=Path, help="YAML of another SyncNet, not used in training; its rows stay empty without")
    group.add_argument("--judge", type=Path, help="its weights")
    group.add_argument("--reader", type=Path, required=True, help="the landmark network's weights")
    group.add_argument(
        "--vgg16",
        type=Path,
        help="torchvision's VGG-16 for LPIPS (default: that in checkpoints/; else the landmark network's features)",
    )


def open_meter(parsed: argparse.Namespace, resolution: int, vgg16: Path | None) -> "HeadsMeter":
    """The networks that measure. Raises InputError, ConfigError, WeightsError."""
    from eval.metrics.image import make_appearance
    from eval.metrics.sync import load_sync_meter
    from latentsync.models.landmark_network import load_landmark_network
    from latentsync.pipelines.build import resolve_device

    device = resolve_device(parsed.device)
    syncnet = load_sync_meter(parsed.syncnet_config, parsed.syncnet, device)
    judge = None if parsed.judge is None else load_sync_meter(parsed.judge_config, parsed.judge, device)
    reader = load_landmark_network(parsed.reader).to(device).eval()
    return HeadsMeter(resolution, syncnet, judge, reader, make_appearance(reader, vgg16, device), device)


def measure_all(
    pairs: "Sequence[RenderedPair]", silent: int, videos: "GeneratedVideos", meter: "HeadsMeter"
) -> "tuple[list[PairMeasures], list[SilenceMeasures], dict[str, str]]":
    """Pairs, silence, and which clips could not be measured and why. Raises InputError where none could."""

    measured, silence, failed = [], [], {}
    for number, pair in enumerate(pairs):
        logger.info("%s (%d of %d)", pair.name, number + 1, len(pairs))
        try:
            generated = videos.generate(pair.name, pair.video, pair.twin)
            measured.append(meter.measure(pair, number, generated, videos.generated_share(pair.name)))
            if len(silence) < silent:
                generated = videos.generate_silent(f"{pair.name}_silence", pair.video, len(read_labels(pair.video)))
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

    if (parsed.judge is None) != (parsed.judge_config is None):
        raise InputError("A judge is a configuration and its weights: give both --judge_config and --judge, or neither.")
    pairs = find_pairs(parsed.clips, parsed.limit)
    splits = sorted({read_labels(pair.video).split for pair in pairs})
    if splits != ["test"]:
        logger.warning("These clips are of %s: people that the model may have been trained on.", ", ".join(splits))
    named = (parsed.unet_config_path, parsed.inference_ckpt_path, parsed.vae_path, parsed.whisper_path)
    options = LipsyncOptions(parsed.inference_steps, parsed.guidance_scale, parsed.seed, length="video")
    model = find_model(named, parsed.overrides, parsed.detector, parsed.device, parsed.dtype, options)
    vgg16 = parsed.vgg16 or find_weights("vgg16", ROOT / CHECKPOINTS)
    judges = {"syncnet": parsed.syncnet, "judge": parsed.judge, "reader": parsed.reader, "vgg16": vgg16}
    weights = {**model.weights, **checksums({name: path for name, path in judges.items() if path is not None})}
    meter, videos = open_meter(parsed, model.config.data.resolution, vgg16), model.videos(parsed.output_dir / "generated")
    measured, silence, failed = measure_all(pairs, parsed.silence, videos, meter)
    settings = {**model.settings(), "splits": splits, "syncnet_config": str(parsed.syncnet_config), "silence": len(silence)}
    table = Results(settings, weights, measured, silence, failed, meter.appearance.name).write(parsed.output_dir)
    write_figure({pair.name: pair for pair in pairs}, measured, videos, meter, parsed.output_dir / "sheet.png")
    print(table, end="")


def write_figure(
    pairs: "Mapping[str, RenderedPair]", measured: "Sequence[PairMeasures]", videos: "GeneratedVideos", meter: "HeadsMeter", path: Path
) -> None:
    """Write aligned faces of some clips as a picture. Raises OutputError."""
    blocks = []
    for index, why in chosen_clips(measured).items():
        found = measured[index]
        pair, lmd, before = pairs[found.name], found.videos.generated.lmd, found.videos.source.lmd
        share_of_source = 100 * lmd / before if before else 0.0
        title = f"{pair.name} ({why}): LMD {100 * lmd:.2f} % of the face, {share_of_source:.0f} % of the source's; rows: {', '.join(ROWS)}"
        blocks.append(clip_block(meter.faces(pair, videos.generate(pair.name, pair.video, pair.twin)), title))
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(np.vstack(blocks), cv2.COLOR_RGB2BGR))[1]
    with staged(path) as temporary:
        try:
            temporary.write_bytes(encoded.tobytes())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: settings of the process, and every failure in one sentence."""
    parsed = parse_arguments(arguments)
    again = "the same command goes on with the clip that was in work."
    return run_command(lambda: run(parsed), "eval", again, verbose=parsed.verbose)


if __name__ == "__main__":
    sys.exit(main())
