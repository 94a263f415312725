"""Checks of training data before a training: where clips come from, what they show, whether one batch can be learnt, and what to change."""

import hashlib
import math
import os
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import sem
from torch import nn
from tqdm import tqdm

from latentsync.config import Config, EncoderConfig, SyncNetConfig
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.cache import read_pieces
from latentsync.data.clip_index import Catalog, ClipInfo, open_catalog, sidecar
from latentsync.data.sampling import ClipDataset, SampleIndex, SyncNetBatch, collate
from latentsync.errors import InputError
from latentsync.faces.mask import to_pixels
from latentsync.losses.sync import cosine_loss
from latentsync.media.audio import AudioSamples
from latentsync.media.files import read_record
from latentsync.mel import log_mel
from latentsync.models.syncnet import StableSyncNet, syncnet_frames
from latentsync.training.syncnet import CHANCE, FEW_CLIPS, MOUTH, SMALL_BATCH

# Where clips come from
_SHOT = re.compile(r"[_\-. ]+(?:shot|seg|segment|scene|part|chunk|clip)[_\-. ]*\d+(?=[_\-. ]|$)", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"[_\-. ]+\d+$")
_NO_NAMES = frozenset({"clip", "video", "person", "speaker", "face", "recording", "sample", "file"})  # before a number they name nobody

# What clips show
MEASURED_FRAMES = 100  # of a clip, from its start
SILENCE_DB = -50.0  # of full scale; a frame whose sound is softer is silent
LAGS = 8  # frames to either side over which sound and movement are compared
GRID = 16  # cells a side of the map of movement
_SIDE = 64  # pixels a side of the frames that are compared
_MOUTH_ROWS, _MOUTH_COLUMNS = slice(9, 16), slice(4, 12)  # cells of the lower middle of a face
_INDEPENDENT = 30  # moments of a clip that are independent of each other, about
_LEAST_FRAMES = 4 * LAGS + 1  # a clip with fewer says nothing about a lag
_NO_MOVEMENT = 0.01  # grey levels, over the whole picture
_STEP_SAMPLES = AUDIO_SAMPLE_RATE // VIDEO_FPS
_SOUND_GRID, _PICTURE_GRID = (8, 17), (8, 9)  # rows, columns: neighbours along a row are compared, one bit each
_SAME_SOUND, _SAME_PICTURE = 7, 10  # bits of 128 and of 64 in which two hashes of the same thing may differ

# Whether one batch can be learnt
SAMPLES = 16  # half of them in sync
LEAST_STEPS = 60  # fewer do not show whether anything is learnt
LEARNT = 0.1  # a loss this much below chance has left it
_ENOUGH = 0.4  # a loss at which the answer is clear
_TRIES = 8  # samples that are read for each one that is kept
_SMALL_SIDE = 64  # cells a side of what the small network is given
_WIDTHS = (32, 64, 96, 128, 128, 128)  # of the small network's blocks, each of which halves its input
_LR = 1e-3
_RECENT = 5  # steps that the last loss is averaged over

# What is worth a line
GOOD, NOTE, WARNING, SERIOUS = "good", "note", "warning", "serious"
FEW_SOURCES = 50
LARGE_SHARE = 0.2  # of all clips, from one source
TELLING_CLIPS, TELLING_SOURCES = 100, 10  # from which a measured lag says something: clips of one recording share its timing
MANY, MOST = 0.05, 0.3  # shares of clips from which a fault is worth a warning, or makes the data unfit
APART = 1.5  # frames of lag from which sound and picture are apart
STILL = 0.15  # grey levels: a mouth that moves less from frame to frame is a photograph
CERTAIN, PLACED = 5.0, 7.0  # standard errors from which the measured lag, and the place of the mouth, are believed
_MOUTH_X, _MOUTH_Y = (0.2, 0.8), (0.5, 0.95)  # where the mouth of an aligned face lies, shares of width and height


class ClipOrigin(NamedTuple):
    """Where a clip comes from."""

    source: str  # the person, where a sidecar names one; else the folder or the recording that it was cut from
    voice: str | None = None  # where a sidecar names one
    guessed: bool = False  # the source is taken from the file's name alone


class ClipMeasures(NamedTuple):
    """What one clip shows."""

    path: Path
    width: int
    height: int
    silent: float  # share of frames whose sound is below SILENCE_DB
    movement: float  # mean difference of neighbouring frames around the mouth, grey levels of 255
    sound_hash: int  # 128 bits that survive another encoding
    picture_hash: int  # 64 bits of the first frame


@dataclass
class LagCorrelation:
    """Correlation of movement with sound, lag by lag, over clips. A peak at lag k means that the sound comes k frames late."""

    cells: np.ndarray = field(default_factory=lambda: np.zeros((2 * LAGS + 1, GRID, GRID)))  # sum over clips
    mouths: list[np.ndarray] = field(default_factory=list)  # of each clip, at each lag

    def add(self, cells: np.ndarray, mouth: np.ndarray) -> None:
        self.cells += cells
        self.mouths.append(mouth)

    def lag(self) -> int:
        """Frames by which the sound of most clips comes late; negative: early."""
        return int(np.mean(self.mouths, axis=0).argmax()) - LAGS if self.mouths else 0

    def certainty(self) -> float:
        """The correlation at that lag in units of its standard error over clips; 0 for fewer than 8 clips."""
        values = [mouth[self.lag() + LAGS] for mouth in self.mouths]
        return float(np.mean(values) / max(sem(values), 1e-5)) if len(values) >= 8 else 0.0

    def place(self) -> tuple[float, float]:
        """Where in the picture (x, y from 0 to 1) movement goes best with sound, at whatever lag."""
        _, row, column = np.unravel_index(self.cells.argmax(), self.cells.shape)
        return (float(column) + 0.5) / GRID, (float(row) + 0.5) / GRID

    def place_certainty(self) -> float:
        """The correlation at that place in units of what chance gives; of so many the largest is 4 or 5 by chance."""
        return float(self.cells.max() * np.sqrt(_INDEPENDENT / max(1, len(self.mouths))))


@dataclass
class ExaminedSplit:
    """Clips that are trained on, or held out, with everything that is known about them."""

    name: str  # "training" or "held-out"
    catalog: Catalog
    origins: Sequence[ClipOrigin]  # one for each clip
    measured: list[ClipMeasures] = field(default_factory=list)  # of some of them
    broken: dict[Path, str] = field(default_factory=dict)  # clips that could not be decoded, and why
    correlation: LagCorrelation = field(default_factory=LagCorrelation)

    def sources(self) -> Counter[str]:
        return Counter(origin.source for origin in self.origins)

    def voices(self) -> Counter[str]:
        return Counter(origin.voice for origin in self.origins if origin.voice)


def examine(
    name: str, folder: Path | None, fileslist: Path | None, *, min_frames: int, cache_dir: Path, limit: int, show_progress: bool = False
) -> ExaminedSplit:
    """Everything that can be known about clips, see `open_catalog`; at most `limit` of them, evenly spread, are decoded."""
    catalog = open_catalog(folder, fileslist, min_frames=min_frames, cache_dir=cache_dir, show_progress=show_progress)
    paths = [clip.path for clip in catalog.clips]
    root = folder.absolute() if folder is not None else Path(os.path.commonpath([path.parent for path in paths]))
    chosen = [catalog.clips[place * len(paths) // limit] for place in range(limit)] if limit < len(paths) else catalog.clips
    split = ExaminedSplit(name, catalog, read_origins(paths, root))

    def measure(clip: ClipInfo) -> "tuple[ClipMeasures | None, Correlations | None, str | None]":
        try:
            return *measure_clip(clip.path, min(clip.frames, MEASURED_FRAMES)), None
        except InputError as error:
            return None, None, str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="data check") as pool:
        results = tqdm(
            pool.map(measure, chosen), "measuring", len(chosen), unit="clip", disable=None if show_progress else True, leave=False
        )
        for clip, (measures, correlations, problem) in zip(chosen, results, strict=True):
            if problem is not None:
                split.broken[clip.path] = problem
                continue
            split.measured.append(measures)
            if correlations is not None:
                split.correlation.add(*correlations)
    return split


# Where clips come from


def read_origins(clips: Sequence[Path], root: Path) -> list[ClipOrigin]:
    """The origin of each clip, from the .json beside it and its place below `root`."""
    levels = zip(*(_folders(clip, root) for clip in clips), strict=False) if len(clips) > 1 else ()
    shared = sum(1 for _ in takewhile(lambda folders: len(set(folders)) == 1, levels))  # folders that all clips have in common
    origins = []
    for clip in clips:
        plan = read_record(sidecar(clip)).get("plan")
        plan = plan if isinstance(plan, dict) else {}
        source, guessed = (f"identity {plan['identity']}", False) if "identity" in plan else source_name(clip, root, shared)
        voice = plan.get("voice")
        if isinstance(voice, dict):
            voice = "/".join(str(voice[key]) for key in ("engine", "name") if key in voice)
        origins.append(ClipOrigin(source, voice if isinstance(voice, str) and voice else None, guessed))
    return origins


def source_name(clip: Path, root: Path, depth: int = 0) -> tuple[str, bool]:
    """What a clip was cut from, and whether that is a guess: its folder below `root` (after `depth`), or its name without numbers."""
    folders = _folders(clip, root)[depth:]
    if folders:
        return folders[0], False
    before_shot = _SHOT.split(clip.stem)[0]
    name = before_shot if before_shot != clip.stem else _LAST_NUMBER.sub("", clip.stem)
    return (clip.stem if not name or name.lower() in _NO_NAMES else name), True


def _folders(clip: Path, root: Path) -> tuple[str, ...]:
    """Folders of a clip below `root`; of one that lies elsewhere, the one it lies in."""
    clip, root = clip.absolute(), root.absolute()
    return clip.relative_to(root).parts[:-1] if clip.is_relative_to(root) else (clip.parent.name,)


# What clips show


Correlations = tuple[np.ndarray, np.ndarray]  # of one clip, as `LagCorrelation.add` takes them


def measure_clip(path: Path, frames: int) -> tuple[ClipMeasures, Correlations | None]:
    """Measure the first frames of a clip; no correlations where it is too short, silent or still. Raises InputError."""
    grey, height, width = [], 0, 0
    for piece in read_pieces(path, frames):
        height, width = piece.shape[1:3]
        small = (cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in piece.numpy())
        grey += [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in small]
    pictures = np.stack(grey)  # f h w
    with AudioSamples(path) as sound:
        samples = sound[: len(pictures) * _STEP_SAMPLES]
    steps = len(samples) // _STEP_SAMPLES
    if not steps:
        raise InputError(f"{path} holds no sound: make this clip again")
    power = (samples[: steps * _STEP_SAMPLES].reshape(steps, -1) ** 2).mean(1)
    level = 10 * np.log10(power + 1e-10)  # dB of full scale
    cells = np.abs(np.diff(pictures, axis=0)).reshape(-1, GRID, _SIDE // GRID, GRID, _SIDE // GRID).mean((2, 4))  # f-1 16 16
    mouth = cells[:, _MOUTH_ROWS, _MOUTH_COLUMNS].mean((1, 2)) if len(cells) else np.zeros(1)
    hashes = _difference_hash(log_mel(samples).numpy(), _SOUND_GRID), _difference_hash(pictures[0], _PICTURE_GRID)
    measures = ClipMeasures(path, width, height, float((level < SILENCE_DB).mean()), float(mouth.mean()), *hashes)
    both = min(len(cells), steps - 1)
    audible = np.maximum(level[1 : both + 1], SILENCE_DB - 20)
    if both + 1 < _LEAST_FRAMES or audible.std() < 1 or cells.mean() < _NO_MOVEMENT:
        return measures, None
    return measures, (_correlations(cells[:both], audible), _correlations(mouth[:both], audible))


def _correlations(movement: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Correlation along time of movement (f ...) with the sound level (f) at each lag: (2 LAGS + 1) ..."""

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean(0)) / (values.std(0) + 1e-6)

    inner = standard(movement[LAGS : len(movement) - LAGS])
    lags = [standard(level[LAGS + lag : len(level) - LAGS + lag]) for lag in range(-LAGS, LAGS + 1)]
    return np.tensordot(np.stack(lags), inner, axes=1) / len(inner)


def _difference_hash(values: np.ndarray, grid: tuple[int, int]) -> int:
    """One bit for each two neighbours in a row of a coarse picture of `values` (h w): which is larger."""
    small = cv2.resize(values.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _near_duplicates(clips: Iterable[ClipMeasures]) -> list[list[Path]]:
    """Pairs (a first one, another one) of clips of the same sound and picture, whatever their encoding; silent clips are left out."""
    buckets: dict[tuple[int, int], list[ClipMeasures]] = defaultdict(list)
    pairs = []
    for clip in clips:
        if clip.silent > 0.9:
            continue
        keys = [(place, clip.sound_hash >> (16 * place) & 0xFFFF) for place in range(8)]  # 8 differing bits at least hit all of them
        for other in (other for key in keys for other in buckets[key]):
            same_sound = (clip.sound_hash ^ other.sound_hash).bit_count() <= _SAME_SOUND
            if same_sound and (clip.picture_hash ^ other.picture_hash).bit_count() <= _SAME_PICTURE:
                pairs.append([other.path, clip.path])
                break
        for key in keys:
            buckets[key].append(clip)
    return pairs


def _exact_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same bytes; only files of equal size are read."""
    groups: dict[bytes, list[Path]] = defaultdict(list)
    try:
        sizes = {path: path.stat().st_size for path in paths}
        counts = Counter(sizes.values())
        for path in (path for path, size in sizes.items() if counts[size] > 1):
            groups[hashlib.blake2b(path.read_bytes()).digest()].append(path)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read any more ({error.strerror}): run the check again when no clip changes") from None
    return [group for group in groups.values() if len(group) > 1]


# Whether one batch can be learnt


class Overfit(NamedTuple):
    """How it went to train a small SyncNet on one batch alone."""

    samples: int
    steps: int
    seconds: float
    first: float  # loss at the start
    last: float  # mean of the last few
    learnt: bool  # the loss has left chance
    decided: bool  # it was tried long enough to tell


def balanced_batch(dataset: ClipDataset[SyncNetBatch], samples: int = SAMPLES) -> SyncNetBatch:
    """Samples of different clips, half of them in sync as far as can be. Raises InputError where clips cannot be read."""
    kept: dict[int, list[SyncNetBatch]] = {0: [], 1: []}
    for position in range(_TRIES * samples):
        sample = dataset[SampleIndex(position, position * max(1, len(dataset) // samples) % len(dataset))]
        same = kept[int(sample.label)]
        if len(same) < samples // 2:
            same.append(sample)
        if sum(map(len, kept.values())) == samples:
            break
    return collate([*kept[0], *kept[1]])


def overfit(batch: SyncNetBatch, *, lower_half: bool, seconds: float, device: torch.device, show_progress: bool = False) -> Overfit:
    """Train a small SyncNet on one batch, frames and mel at 64 x 64, for `seconds` at most: it learns every batch of sound data."""
    size = (_SMALL_SIDE, _SMALL_SIDE)
    frames = F.interpolate(syncnet_frames(to_pixels(batch.faces.to(device)), lower_half), size=size, mode="area")
    mel, label = F.interpolate(batch.mel.to(device), size=size, mode="area"), batch.label.to(device)
    encoders = (EncoderConfig(channels, _WIDTHS, [2] * len(_WIDTHS), [0] * len(_WIDTHS)) for channels in (1, frames.shape[1]))
    network = StableSyncNet(*encoders).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR)
    losses: deque[float] = deque(maxlen=_RECENT)
    first, steps, start = 0.0, 0, time.monotonic()
    with tqdm(desc="one batch", unit="step", disable=None if show_progress else True, leave=False) as bar:
        while not losses or time.monotonic() - start < seconds:
            loss = cosine_loss(*network(frames, mel), label).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            first = losses[0] if steps == 0 else first
            steps += 1
            bar.update()
            bar.set_postfix_str(f"loss {losses[-1]:.3f}")
            if max(losses) < _ENOUGH and len(losses) == _RECENT:
                break
    last = fmean(losses)
    learnt = last < CHANCE - LEARNT
    return Overfit(len(label), steps, time.monotonic() - start, first, last, learnt, learnt or steps >= LEAST_STEPS)


# What is worth a line


class Finding(NamedTuple):
    """One line of advice."""

    gravity: str
    topic: str
    text: str


def facts_of(split: ExaminedSplit) -> dict[str, Any]:
    """Numbers about the clips of a split, of plain types."""
    clips, measured, correlation, sources = split.catalog.clips, split.measured, split.correlation, split.sources()
    seconds = [clip.frames / VIDEO_FPS for clip in clips]
    largest, count = sources.most_common(1)[0]
    reasons: dict[str, list[Path]] = defaultdict(list)  # why clips were rejected, without the details
    for path, why in split.catalog.rejected.items():
        reasons[why.partition(":")[0]].append(path)
    commonest = sorted(reasons.items(), key=lambda entry: -len(entry[1]))
    return {
        "clips": len(clips),
        "hours": round(sum(seconds) / 3600, 3),
        "frames": sum(clip.frames for clip in clips),
        "seconds": {"min": min(seconds), "median": median(seconds), "max": max(seconds)},
        "rejected": {why: {"clips": len(paths), "example": str(paths[0])} for why, paths in commonest},
        "sources": len(sources),
        "largest_source": {"name": largest, "share": round(count / len(clips), 3)},
        "voices": len(split.voices()),
        "with_mouth_channels": sum(clip.mouth for clip in clips),
        "measured": len(measured),
        "broken": {str(path): why for path, why in split.broken.items()},
        "sizes": dict(Counter(f"{clip.width}x{clip.height}" for clip in measured).most_common()),
        "silent_clips": sum(clip.silent > 0.5 for clip in measured),
        "silent_frames": round(sum(clip.silent for clip in measured) / max(1, len(measured)), 3),
        "still_clips": sum(clip.movement < STILL for clip in measured),
        "measured_lag": {
            "frames": correlation.lag(),
            "standard_errors": round(correlation.certainty(), 1),
            "place": list(correlation.place()),
        },
    }


def findings(config: Config | SyncNetConfig, train: ExaminedSplit, held_out: ExaminedSplit | None, tried: Overfit | None) -> list[Finding]:
    """Everything worth a line, the gravest first."""
    splits = [train, *([held_out] if held_out else [])]
    found = [*_amount(config, train), *_separation(train, held_out)]
    for split in splits:
        found += [*_rejected(split), *_lag(split), *_shown(config.data.resolution, split)]
    found += [*_copies(splits), *_mouth(config, train), *_learning(tried)]
    order = (SERIOUS, WARNING, NOTE, GOOD)
    return sorted((Finding(*line) for line in found), key=lambda finding: order.index(finding.gravity))


Lines = Iterator[tuple[str, str, str]]  # gravity, topic, text of a finding


def _by_share(share: float, many: float = MANY, most: float = math.inf) -> str:
    """The gravity of a fault that so large a share of the clips has."""
    return SERIOUS if share > most else WARNING if share > many else NOTE


def _amount(config: Config | SyncNetConfig, train: ExaminedSplit) -> Lines:
    clips, sources = len(train.catalog), train.sources()
    if clips < FEW_CLIPS:
        yield WARNING, "amount", f"{clips} clips are few, {FEW_CLIPS} and more are wanted: add clips, rendered heads for instance"
    if len(sources) < FEW_SOURCES:
        text = f"the clips come from {len(sources)} sources: with fewer than {FEW_SOURCES} people a network memorises faces"
        yield WARNING, "sources", text
    largest, count = sources.most_common(1)[0]
    if len(sources) > 1 and count > LARGE_SHARE * clips:
        text = f"{count / clips:.0%} of the clips come from one source, {largest}: leave some of them out, or add others"
        yield WARNING, "sources", text
    batch = config.data.batch_size * config.run.gradient_accumulation_steps
    if isinstance(config, SyncNetConfig) and batch < SMALL_BATCH:
        text = f"batches of {batch} may stay at {CHANCE:.2f} for long: raise run.gradient_accumulation_steps until they have {SMALL_BATCH}"
        yield WARNING, "batch", text


def _separation(train: ExaminedSplit, held_out: ExaminedSplit | None) -> Lines:
    if held_out is None:
        yield WARNING, "held out", "no held-out clips are named (data.val_data_dir): nothing will show whether learning generalises"
        return
    people = sorted(train.sources().keys() & held_out.sources().keys())
    voices = sorted(train.voices().keys() & held_out.voices().keys())
    if people:
        text = f"{len(people)} of {len(held_out.sources())} held-out sources are trained on, too ({_some(people)}): move each to one split"
        sure = set(people) - {origin.source for split in (train, held_out) for origin in split.origins if origin.guessed}
        text = text if sure else f"going by the names of files, {text}, unless they show different people"
        yield SERIOUS if sure else WARNING, "leak", text
    if voices:
        text = f"{len(voices)} of {len(held_out.voices())} held-out voices are trained on, too ({_some(voices)}): results will flatter"
        yield WARNING, "leak", text
    if not people and not voices:
        yield GOOD, "leak", "training and held-out clips share no source"


def _rejected(split: ExaminedSplit) -> Lines:
    if rejected := len(split.catalog.rejected) + len(split.broken):
        share = rejected / (len(split.catalog) + len(split.catalog.rejected))
        text = f"{rejected} {split.name} files ({share:.0%}) cannot be used: see the reasons above"
        yield _by_share(share, most=0.5), "rejected", text


def _lag(split: ExaminedSplit) -> Lines:
    """Where, and how late, the picture moves with the sound."""
    correlation, sources = split.correlation, len(split.sources())
    (x, y), lag, clips = correlation.place(), correlation.lag(), len(correlation.mouths)
    if correlation.place_certainty() > PLACED and not (_MOUTH_X[0] <= x <= _MOUTH_X[1] and _MOUTH_Y[0] <= y <= _MOUTH_Y[1]):
        text = (
            f"what moves with the sound in the {split.name} clips lies at {x:.0%} of the width and {y:.0%} of the height, where an aligned "
            "face has no mouth: align the faces with the data processing pipeline"
        )
        yield SERIOUS, "alignment", text
    few = clips < TELLING_CLIPS or sources < TELLING_SOURCES
    where = f"{abs(lag)} frames {'late' if lag > 0 else 'early'}"
    if correlation.certainty() < CERTAIN:
        text = (
            f"no movement with the sound was found in {clips} {split.name} clips: too few to tell, or faces that are not aligned, or "
            "sound of somebody else"
        )
        yield NOTE if few else WARNING, "lag", text
    elif abs(lag) < APART:
        yield GOOD, "lag", f"mouths move with the sound in the {split.name} clips"
    elif few:
        text = (
            f"movement in {clips} {split.name} clips of {sources} sources goes best with their sound {where}: that may be chance below "
            f"{TELLING_CLIPS} clips or {TELLING_SOURCES} sources; eval/eval_sync_conf.sh measures the offset of each clip"
        )
        yield NOTE, "lag", text
    else:
        yield SERIOUS, "lag", f"the sound of the {split.name} clips comes about {where}: shift it by that much"


def _shown(resolution: int, split: ExaminedSplit) -> Lines:
    """Silence, still mouths, and faces of another size than training wants."""
    count = len(split.measured)
    for topic, faulty, text in (
        ("silence", [clip.path for clip in split.measured if clip.silent > 0.5], "are silent for more than half of their frames"),
        ("still", [clip.path for clip in split.measured if clip.movement < STILL], "show a mouth that never moves"),
    ):
        if faulty:
            text = f"{len(faulty)} of {count} {split.name} clips {text} ({_some(faulty)}): leave them out"
            yield _by_share(len(faulty) / count, most=MOST), topic, text
    sizes = [min(clip.width, clip.height) for clip in split.measured]
    small, large = sum(size < resolution for size in sizes), sum(size > resolution for size in sizes)
    if small:
        text = f"{small} of {count} {split.name} clips are smaller than data.resolution {resolution} and would be blown up"
        yield _by_share(small / count), "size", f"{text}: lower data.resolution, or leave them out"
    if large:
        text = f"{large} of {count} {split.name} clips are larger than data.resolution {resolution}: each reading scales them down"
        yield NOTE, "size", text


def _copies(splits: Sequence[ExaminedSplit]) -> Lines:
    exact = _exact_duplicates(dict.fromkeys(clip.path for split in splits for clip in split.catalog.clips))
    copies = {path for group in exact for path in group}
    near = _near_duplicates({clip.path: clip for split in splits for clip in split.measured}.values())
    near = [pair for pair in near if not copies.issuperset(pair)]
    clips = sum(len(split.catalog) for split in splits)
    held = {clip.path for split in splits[1:] for clip in split.catalog.clips}
    both = sorted(held.intersection(clip.path for clip in splits[0].catalog.clips))
    across = [group for group in (*exact, *near) if 0 < sum(path in held for path in group) < len(group)]
    if both:
        text = f"{len(both)} clips are both trained on and held out ({_some(both)}): take them out of one of the two"
        yield SERIOUS, "leak", text
    if across:
        text = f"{len(across)} clips are both trained on and held out, under two names ({_some(across[0])}): remove them from one split"
        yield SERIOUS, "leak", text
    for words, some in (("exact copies of others", exact), ("the same clip as another one in another encoding", near)):
        if spare := sum(len(group) - 1 for group in some):
            yield _by_share(spare / clips, many=0.01), "duplicates", f"{spare} clips are {words} (such as {_some(some[0])}): remove them"


def _mouth(config: Config | SyncNetConfig, train: ExaminedSplit) -> Lines:
    without = sum(not clip.mouth for clip in train.catalog.clips)
    weight = config.run.loss_weights.get(MOUTH, 0.0)
    if weight > 0 and without:
        yield SERIOUS, "mouth", f"run.loss_weights.mouth is {weight:g} and {without} clips have no known mouth channels: set it to 0"
    if weight == 0 and not without and isinstance(config, SyncNetConfig):
        yield NOTE, "mouth", "every clip comes with its known mouth channels: run.loss_weights.mouth=1 lets SyncNet leave chance sooner"


def _learning(tried: Overfit | None) -> Lines:
    if tried is None:
        return
    numbers = f"a small SyncNet on {tried.samples} samples: loss {tried.first:.3f} -> {tried.last:.3f} in {tried.steps} steps"
    if tried.learnt:
        yield GOOD, "learning", f"one batch is learnt; {numbers}"
    elif not tried.decided:
        yield NOTE, "learning", f"too few steps to tell whether one batch can be learnt; {numbers}: give more --seconds"
    else:
        text = f"one batch is not learnt, the loss stays near {CHANCE:.3f}; {numbers}: watch a few clips with their sound"
        yield SERIOUS, "learning", text


def _some(things: Sequence[object]) -> str:
    return ", ".join(map(str, things[:3])) + (", ..." if len(things) > 3 else "")
