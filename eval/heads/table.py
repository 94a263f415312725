"""The table of what a model is measured by on rendered heads: each measure with its aim, its controls and its interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eval.heads.measures import PairMeasures, SilenceMeasures, SyncMeasures, VideoMeasures
from eval.measures.estimates import Estimate, bootstrap, mean, ratio, share
from eval.measures.mouths import SPEECH_SHARES, SpeechRange, speech_range

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
class Row:
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


def make_rows(pairs: Sequence[PairMeasures], silence: Sequence[SilenceMeasures], appearance: str) -> list[Row]:
    """All rows; `appearance` names the distance of how mouths look."""
    return [
        *_accuracy(pairs),
        *_sync_with_syncnet(pairs),
        _each(pairs, "lip opening against the truth, Pearson r within a clip", mean, _opening_r, Aim(">=", 0.9), Aim("<", 0.3)),
        Row("... of the old words' truth against the new words' (what the control can be at best)", mean([pair.truth_r for pair in pairs])),
        *_sync_with_judge(pairs),
        *_mouths(pairs, appearance),
        *_silence(pairs, silence),
        *_jitter(pairs),
    ]


def _videos(pairs: Sequence[PairMeasures], name: str) -> list[VideoMeasures]:
    return [getattr(pair.videos, name) for pair in pairs]


def _each(
    pairs: Sequence[PairMeasures],
    name: str,
    estimate: Callable[[list], Estimate | None],
    of: Callable[[VideoMeasures], float | bool | None],
    aim: Aim | None = None,
    control: Aim | None = None,
    unit: str = PLAIN,
) -> Row:
    """The same estimate of all three videos."""
    found = [estimate([of(video) for video in _videos(pairs, kind)]) for kind in VIDEOS]
    return Row(name, *found, aim=aim, control=control, unit=unit)


def _against(
    pairs: Sequence[PairMeasures],
    name: str,
    of: Callable[[VideoMeasures], float],
    reference: str,
    aim: Aim | None,
    control: Aim | None = None,
) -> Row:
    """Values of all three videos as a share of those of one of them, ratio of the means."""
    below = [of(video) for video in _videos(pairs, reference)]
    found = [None if kind == reference else ratio([of(video) for video in _videos(pairs, kind)], below) for kind in VIDEOS]
    return Row(name, *found, aim=aim, control=control, unit=PERCENT)


def _opening_r(video: VideoMeasures) -> float | None:
    return video.opening_r


def _accuracy(pairs: Sequence[PairMeasures]) -> list[Row]:
    """SyncNet on real renders: the measured value is the accuracy itself, the control is the same with shuffled labels."""
    asked = {"SyncNet": [pair.syncnet_pairs for pair in pairs], "judge": [pair.judge_pairs for pair in pairs if pair.judge_pairs]}
    rows = []
    for net, tallies in asked.items():
        below = [tally.pairs for tally in tallies]
        right, shuffled = ratio([tally.right for tally in tallies], below), ratio([tally.right_shuffled for tally in tallies], below)
        aim = Aim(">=", 0.94) if net == "SyncNet" else None
        rows.append(Row(f"accuracy of the {net} on renders of unseen people and voices", right, aim=aim, unit=PERCENT))
        rows.append(Row(f"... of the {net} with shuffled labels (control)", shuffled, aim=Aim("about", 0.5), unit=PERCENT))
    return rows


def _sync_with_syncnet(pairs: Sequence[PairMeasures]) -> list[Row]:
    return [
        _each(
            pairs,
            "SyncNet of the training: offset 0 to the old sound",
            share,
            lambda v: v.syncnet.old.offset == 0,
            Aim("<", 0.2),
            None,
            PERCENT,
        ),
        _each(
            *(pairs, "SyncNet of the training: offset 0 to the new sound", share, lambda v: v.syncnet.new.offset == 0),
            *(Aim(">=", 0.95), Aim("<", 0.2), PERCENT),
        ),
    ]


def _sync_with_judge(pairs: Sequence[PairMeasures]) -> list[Row]:
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


def _mouths(pairs: Sequence[PairMeasures], appearance: str) -> list[Row]:
    return [
        _against(pairs, "LMD of the mouth, share of the source's", lambda v: v.lmd, "source", Aim("<=", 0.25)),
        _each(pairs, "LMD of the mouth, share of the face's side", mean, lambda v: v.lmd, unit=PERCENT),
        Row("... that the mouth reader itself is off on true renders", mean([pair.reader_error for pair in pairs]), unit=PERCENT),
        _against(pairs, f"{appearance}: share of the source's", lambda v: v.appearance, "source", Aim("<=", 0.5)),
        _each(pairs, f"{appearance}", mean, lambda v: v.appearance),
        _against(pairs, "mouth box: mean absolute difference, share of the source's", lambda v: v.l1, "source", None),
        _each(pairs, "mouth box: mean absolute difference, grey levels", mean, lambda v: v.l1),
        _each(pairs, "mouth box: PSNR, dB", mean, lambda v: v.psnr),
    ]


def _jitter(pairs: Sequence[PairMeasures]) -> list[Row]:
    aim = Aim("<=", 1.2)
    return [
        _against(pairs, "jitter of the mouth's landmarks, share of the true render's", lambda v: v.landmark_jitter, "true", aim),
        _against(pairs, "jitter of the mouth box's pixels, share of the true render's", lambda v: v.pixel_jitter, "true", aim),
    ]


def _silence(pairs: Sequence[PairMeasures], silence: Sequence[SilenceMeasures]) -> list[Row]:
    span = heads_speech_range(pairs)
    if span is None or not silence:
        return [Row("silence: lip opening", None, aim=Aim("<=", 0.1), unit=PERCENT)]
    before = [span.share(np.array(one.source_opening)) for one in silence]
    after = [span.share(np.array(one.opening)) for one in silence]

    def row(name: str, statistic: Callable[[np.ndarray], float], aim: Aim | None) -> Row:
        made, old = (
            bootstrap(lambda chosen, of=of: float(statistic(np.concatenate([of[clip] for clip in chosen]))), len(of))
            for of in (after, before)
        )
        return Row(name, made, old, aim=aim, unit=PERCENT)

    low, high = SPEECH_SHARES
    name = f"silence: lip opening, share of the speech range ({low}th to {high}th percentile of generated speech)"
    return [row(f"{name}, mean", np.mean, Aim("<=", 0.1)), row(f"... {PEAK}th percentile", lambda part: np.percentile(part, PEAK), None)]


def heads_speech_range(pairs: Sequence[PairMeasures]) -> SpeechRange | None:
    """Between which openings generated lips move, over all clips."""
    openings = [np.array(pair.videos.generated.opening) for pair in pairs]
    return speech_range(np.concatenate(openings), np.concatenate([np.array(pair.closed) for pair in pairs])) if openings else None


def to_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table and what is to be known about it."""
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
