"""What the facts about a training's clips mean: a list of findings, each a sentence of advice with its gravity."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from latentsync.constants import VIDEO_FPS
from latentsync.data.catalog import Catalog
from latentsync.training.overfit import Overfit
from latentsync.training.sources import Note
from latentsync.training.survey import Survey, exact_duplicates, near_duplicates
from latentsync.training.syncnet_step import CHANCE, FEW_CLIPS, SMALL_BATCH

GOOD, NOTE, WARNING, SERIOUS = "good", "note", "warning", "serious"
FEW_SOURCES = 50
LARGE_SHARE = 0.2  # of all clips, from one source
TELLING_CLIPS, TELLING_SOURCES = 100, 10  # from which a measured lag says something: clips of one recording share its timing
MANY, MOST = 0.05, 0.3  # shares of clips from which a fault is worth a warning, or makes the data unfit
APART = 1.5  # frames of offset from which sound and picture are apart
STILL = 0.15  # grey levels: a mouth that moves less from frame to frame is a photograph
CERTAIN, PLACED = 5.0, 7.0  # standard errors from which the measured lag, and the place of the mouth, are believed
_FACE = ((0.2, 0.8), (0.5, 0.95))  # where the mouth of an aligned face lies: from, to in x and in y
_EXAMPLES = 3


class Finding(NamedTuple):
    """One line of advice."""

    gravity: str
    topic: str
    text: str


@dataclass(frozen=True)
class Aims:
    """What the configuration wants of the data."""

    kind: str  # "syncnet" or "unet"
    resolution: int
    batch: int  # clips in one step of the optimizer, of one process
    mouth_weight: float  # of the loss on true mouth channels


@dataclass(frozen=True)
class Side:
    """Clips that are trained on, or held out, with everything that is known about them."""

    name: str  # "training" or "held-out"
    catalog: Catalog
    notes: Sequence[Note]  # one for each clip
    survey: Survey  # of some of them

    def sources(self) -> Counter[str]:
        """Clips of each source."""
        return Counter(note.source for note in self.notes)

    def voices(self) -> Counter[str]:
        """Clips of each voice, as far as voices are known."""
        return Counter(note.voice for note in self.notes if note.voice)

    def offsets(self) -> list[float]:
        """Known offsets, in frames."""
        return [note.offset for note in self.notes if note.offset is not None]


def reasons(rejected: Mapping[Path, str]) -> dict[str, tuple[int, Path]]:
    """Why clips were rejected, numbers and names aside: how many, and one of them; the commonest first."""
    found: dict[str, list[Path]] = {}
    for path, why in rejected.items():
        plain = re.sub(r"\d+(?:[.,]\d+)?", "N", why.replace(str(path), "it"))
        found.setdefault(re.sub(r"of \S*/\S+", "of the list", plain), []).append(path)
    return {why: (len(paths), paths[0]) for why, paths in sorted(found.items(), key=lambda entry: -len(entry[1]))}


def duplicates(sides: Sequence[Side]) -> tuple[list[list[Path]], list[tuple[Path, Path]]]:
    """Over all sides: groups of equal files, and pairs of clips that look and sound the same otherwise."""
    exact = exact_duplicates(dict.fromkeys(clip.path for side in sides for clip in side.catalog.clips))
    copies = {path for group in exact for path in group}
    near = near_duplicates({look.path: look for side in sides for look in side.survey.looks}.values())
    return exact, [pair for pair in near if not copies.issuperset(pair)]


def facts_of(side: Side) -> dict[str, Any]:
    """Numbers about one side, for people and for a JSON file."""
    clips, looks, agreement = side.catalog.clips, side.survey.looks, side.survey.agreement
    seconds = sorted(clip.frames / VIDEO_FPS for clip in clips)
    sources = side.sources()
    largest, count = sources.most_common(1)[0]
    return {
        "clips": len(clips),
        "hours": round(sum(seconds) / 3600, 3),
        "frames": sum(clip.frames for clip in clips),
        "seconds": {"min": seconds[0], "median": median(seconds), "max": seconds[-1]},
        "rejected": {why: {"clips": number, "example": str(path)} for why, (number, path) in reasons(side.catalog.rejected).items()},
        "sources": len(sources),
        "largest_source": {"name": largest, "share": round(count / len(clips), 3)},
        "voices": len(side.voices()),
        "with_mouth_channels": sum(clip.mouth for clip in clips),
        "offsets": {f"{frames:+d}": number for frames, number in sorted(Counter(map(round, side.offsets())).items())},
        "looked_at": len(looks),
        "broken": {str(path): why for path, why in side.survey.broken.items()},
        "sizes": dict(Counter(f"{look.width}x{look.height}" for look in looks).most_common()),
        "silent_clips": sum(look.silent > 0.5 for look in looks),
        "silent_frames": round(sum(look.silent for look in looks) / max(1, len(looks)), 3),
        "still_clips": sum(look.movement < STILL for look in looks),
        "measured_lag": {"frames": agreement.lag(), "standard_errors": round(agreement.certainty(), 1), "place": agreement.place()},
    }


def findings(aims: Aims, train: Side, held_out: Side | None, tried: Overfit | None) -> list[Finding]:
    """Everything worth a line, the gravest first."""
    sides = [train, *([held_out] if held_out else [])]
    found = [*_amount(aims, train), *_separation(train, held_out)]
    found += [line for side in sides for line in (*_rejections(side), *_offsets(side), *_agreement(side), *_looks(aims, side))]
    found += [*_copies(sides), *_mouth(aims, train), *_learning(tried)]
    order = (SERIOUS, WARNING, NOTE, GOOD)
    return sorted(found, key=lambda finding: order.index(finding.gravity))


def _amount(aims: Aims, train: Side) -> list[Finding]:
    clips, sources = len(train.catalog.clips), train.sources()
    found = []
    if clips < FEW_CLIPS:
        text = f"{clips} clips are few, {FEW_CLIPS} and more are wanted: add clips, rendered heads for instance"
        found.append(Finding(WARNING, "amount", text))
    if len(sources) < FEW_SOURCES:
        text = f"the clips come from {len(sources)} sources: with fewer than {FEW_SOURCES} people a network learns faces by heart"
        found.append(Finding(WARNING, "sources", text))
    largest, count = sources.most_common(1)[0]
    if len(sources) > 1 and count > LARGE_SHARE * clips:
        text = f"{count / clips:.0%} of the clips come from one source, {largest}: leave some of them out, or add others"
        found.append(Finding(WARNING, "sources", text))
    if aims.kind == "syncnet" and aims.batch < SMALL_BATCH:
        text = f"batches of {aims.batch} may sit at {CHANCE:.2f} for long: raise run.gradient_accumulation_steps"
        text = f"{text} until a step sees {SMALL_BATCH} or more"
        found.append(Finding(WARNING, "batch", text))
    return found


def _separation(train: Side, held_out: Side | None) -> list[Finding]:
    if held_out is None:
        text = "no held-out clips are named (data.val_data_dir): nothing will show whether learning generalises"
        return [Finding(WARNING, "held out", text)]
    found = []
    people = sorted(train.sources().keys() & held_out.sources().keys())
    if people:
        text = f"{len(people)} of {len(held_out.sources())} held-out sources are trained on, too ({_some(people)}): move each to one side"
        sure = set(people) - {note.source for side in (train, held_out) for note in side.notes if note.guessed}
        text = text if sure else f"going by the names of files, {text}, unless they show different people"
        found.append(Finding(SERIOUS if sure else WARNING, "leak", text))
    voices = sorted(train.voices().keys() & held_out.voices().keys())
    if voices:
        text = f"{len(voices)} of {len(held_out.voices())} held-out voices are trained on, too ({_some(voices)}): results will flatter"
        found.append(Finding(WARNING, "leak", text))
    return found or [Finding(GOOD, "leak", "training and held-out clips share no source")]


def _rejections(side: Side) -> list[Finding]:
    rejected = len(side.catalog.rejected) + len(side.survey.broken)
    if not rejected:
        return []
    share = rejected / (len(side.catalog.clips) + len(side.catalog.rejected))
    text = f"{rejected} {side.name} files ({share:.0%}) cannot be used: see the reasons above"
    return [Finding(SERIOUS if share > 0.5 else WARNING if share > MANY else NOTE, "rejected", text)]


def _offsets(side: Side) -> list[Finding]:
    offsets = side.offsets()
    if not offsets:
        text = f"no offsets of the {side.name} clips are known: neither a manifest nor files beside the clips tell them"
        return [Finding(NOTE, "offsets", text)]
    apart = sum(abs(offset) > APART for offset in offsets)
    if apart <= MANY * len(offsets):
        return [Finding(GOOD, "offsets", f"{apart} of {len(offsets)} {side.name} clips with a known offset are apart by 2 frames or more")]
    text = (
        f"{apart} of {len(offsets)} {side.name} clips with a known offset are apart by 2 frames or more: shift their sound by it "
        "(offset / 25 s), or mark them as corrected in the manifest"
    )
    return [Finding(SERIOUS, "offsets", text)]


def _agreement(side: Side) -> list[Finding]:
    agreement, found = side.survey.agreement, []
    (left, right), (top, bottom), (x, y) = *_FACE, agreement.place()
    if agreement.place_certainty() > PLACED and not (left <= x <= right and top <= y <= bottom):
        text = (
            f"what moves with the sound in the {side.name} clips lies at {x:.0%} of the width and {y:.0%} of the height, where an aligned "
            "face has no mouth: align the faces with the data processing pipeline"
        )
        found.append(Finding(SERIOUS, "alignment", text))
    sources, lag = len(side.sources()), agreement.lag()
    few = agreement.clips < TELLING_CLIPS or sources < TELLING_SOURCES
    if agreement.certainty() < CERTAIN:
        text = (
            f"mouths were not seen to move with the sound in {agreement.clips} {side.name} clips: too few to tell, or faces that are not "
            "aligned, or sound of somebody else"
        )
        return [*found, Finding(NOTE if few else WARNING, "lag", text)]
    if abs(lag) < APART:
        return [*found, Finding(GOOD, "lag", f"mouths move with the sound in the {side.name} clips")]
    where = f"{abs(lag)} frames {'late' if lag > 0 else 'early'}"
    if few:
        text = (
            f"movement in {agreement.clips} {side.name} clips of {sources} sources goes best with their sound {where}: that may be "
            f"chance below {TELLING_CLIPS} clips or {TELLING_SOURCES} sources; eval/eval_sync_conf.sh measures the offset of each clip"
        )
        return [*found, Finding(NOTE, "lag", text)]
    return [*found, Finding(SERIOUS, "lag", f"the sound of the {side.name} clips comes about {where}: shift it by that much")]


def _looks(aims: Aims, side: Side) -> list[Finding]:
    looks = side.survey.looks
    found = []
    for topic, faulty, text in (
        ("silence", [look.path for look in looks if look.silent > 0.5], "are silent for more than half of their frames"),
        ("still", [look.path for look in looks if look.movement < STILL], "show a mouth that never moves"),
    ):
        if faulty:
            share = len(faulty) / len(looks)
            gravity = SERIOUS if share > MOST else WARNING if share > MANY else NOTE
            found.append(
                Finding(gravity, topic, f"{len(faulty)} of {len(looks)} {side.name} clips {text} ({_some(faulty)}): leave them out")
            )
    small = [look.path for look in looks if min(look.width, look.height) < aims.resolution]
    large = sum(min(look.width, look.height) > aims.resolution for look in looks)
    if small:
        text = f"{len(small)} of {len(looks)} {side.name} clips are smaller than data.resolution {aims.resolution} and would be blown up"
        found.append(
            Finding(WARNING if len(small) > MANY * len(looks) else NOTE, "size", f"{text}: lower data.resolution, or leave them out")
        )
    if large:
        text = f"{large} of {len(looks)} {side.name} clips are larger than data.resolution {aims.resolution}: each reading scales them down"
        found.append(Finding(NOTE, "size", text))
    return found


def _copies(sides: Sequence[Side]) -> list[Finding]:
    exact, near = duplicates(sides)
    clips = sum(len(side.catalog.clips) for side in sides)
    held = {clip.path for side in sides[1:] for clip in side.catalog.clips}
    groups = [*exact, *map(list, near)]
    found = []
    both = sorted(held.intersection(clip.path for clip in sides[0].catalog.clips))
    if both:
        text = f"{len(both)} clips are both trained on and held out ({_some(both)}): take them out of one of the two"
        found.append(Finding(SERIOUS, "leak", text))
    across = [group for group in groups if 0 < sum(path in held for path in group) < len(group)]
    if across:
        text = f"{len(across)} clips are both trained on and held out, under two names ({_some(across[0])}): remove them on one side"
        found.append(Finding(SERIOUS, "leak", text))
    for words, some in (("exact copies of others", exact), ("the same clip as another one in another encoding", near)):
        spare = sum(len(group) - 1 for group in some)
        if spare:
            text = f"{spare} clips are {words} (such as {_some(some[0])}): remove them"
            found.append(Finding(WARNING if spare > 0.01 * clips else NOTE, "duplicates", text))
    return found


def _mouth(aims: Aims, train: Side) -> list[Finding]:
    known = sum(clip.mouth for clip in train.catalog.clips)
    if aims.kind != "syncnet":
        return []
    if aims.mouth_weight > 0 and known < len(train.catalog.clips):
        without = len(train.catalog.clips) - known
        text = f"run.loss_weights.mouth is {aims.mouth_weight:g} and {without} clips have no true mouth channels: set it to 0"
        return [Finding(SERIOUS, "mouth", text)]
    if aims.mouth_weight == 0 and known == len(train.catalog.clips):
        text = "every clip comes with its true mouth channels: run.loss_weights.mouth=1 lets SyncNet leave chance sooner"
        return [Finding(NOTE, "mouth", text)]
    return []


def _learning(tried: Overfit | None) -> list[Finding]:
    if tried is None:
        return []
    told = f"{tried.network} on {tried.samples} samples: loss {tried.first:.3f} -> {tried.last:.3f} in {tried.steps} steps"
    if tried.learnt:
        return [Finding(GOOD, "learning", f"one batch is learnt by heart; {told}")]
    if not tried.decided:
        return [Finding(NOTE, "learning", f"too few steps to tell whether one batch can be learnt; {told}: give more --seconds")]
    text = f"one batch is not learnt by heart, the loss stays near {CHANCE:.3f}; {told}: look at and listen to a few clips"
    return [Finding(SERIOUS, "learning", text)]


def _some(things: Sequence[object]) -> str:
    shown = ", ".join(str(thing) for thing in things[:_EXAMPLES])
    return shown + (", ..." if len(things) > _EXAMPLES else "")
