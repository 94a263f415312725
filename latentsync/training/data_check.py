"""Checks of training data before a training: clips, offsets, a short trial of SyncNet."""

import hashlib
import json
import logging
import math
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.cache import read_pieces
from latentsync.data.clip_index import Catalog
from latentsync.data.sampling import ClipDataset, SampleIndex, SyncNetBatch, collate
from latentsync.errors import InputError
from latentsync.faces.mask import to_pixels
from latentsync.losses.sync import cosine_loss, syncnet_frames
from latentsync.media.audio import AudioSamples
from latentsync.media.files import read_table, read_text, written_path
from latentsync.mel import log_mel
from latentsync.models.syncnet import EncoderSizes, StableSyncNet, SyncNet
from latentsync.training.syncnet import CHANCE, FEW_CLIPS, SMALL_BATCH

logger = logging.getLogger(__name__)

MANIFESTS = ("manifest.csv", "manifest.jsonl")
_CLIP_KEYS, _OFFSET_KEY, _CORRECTED_KEY = ("path", "clip"), "offset", "corrected"
_TRUE = frozenset({"true", "yes", "1"})
_ENTRY = re.compile(r'^"\w+": .')  # a whole entry on a line that is not indented
_SHORT = 4096  # characters
_SHOT = re.compile(r"[_\-. ]+(?:shot|seg|segment|scene|part|chunk|clip)[_\-. ]*\d+(?=[_\-. ]|$)", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"[_\-. ]+\d+$")
_NO_NAMES = frozenset({"clip", "video", "person", "speaker", "face", "recording", "sample", "file"})  # before a number they name nobody


@dataclass(frozen=True)
class Note:
    """Where a clip comes from."""

    source: str  # the person, where a sidecar names one; else the folder or the recording that the clip was cut from
    voice: str | None = None  # where a sidecar names one
    offset: float | None = None  # frames by which sound and picture are known to be apart
    guessed: bool = False  # the source is read off the file's name alone


def read_notes(clips: Sequence[Path], root: Path, show_progress: bool = False) -> list[Note]:
    """A note for each clip, from the .json beside it, a manifest in its folder or one above, and its place below `root`."""
    depth = shared_folders(clips, root)
    offsets = read_offsets(clips, root)
    notes = []
    for clip in tqdm(clips, desc="notes", unit="clip", disable=None if show_progress else True, leave=False):
        content = _sidecar(clip)
        plan = content.get("plan") if isinstance(content.get("plan"), dict) else {}
        source, guessed = (f"identity {plan['identity']}", False) if "identity" in plan else source_name(clip, root, depth)
        offset = _offset(content)
        offset = offsets.get(clip.absolute()) if offset is None else offset
        notes.append(Note(source, _voice(plan.get("voice")), offset, guessed))
    return notes


def source_name(clip: Path, root: Path, depth: int = 0) -> tuple[str, bool]:
    """What a clip was cut from, and whether that is a guess.

    It is its folder below `root` (the `depth` folders that all clips share left out). Without one it is guessed: the name before the first
    number of a shot or segment, or else before a last number, if that leaves a name.
    """
    folders = _folders(clip, root)[depth:]
    if folders:
        return folders[0], False
    before_shot = _SHOT.split(clip.stem)[0]
    name = before_shot if before_shot != clip.stem else _LAST_NUMBER.sub("", clip.stem)
    return (clip.stem if not name or name.lower() in _NO_NAMES else name), True


def shared_folders(clips: Sequence[Path], root: Path) -> int:
    """How many folders below `root` all clips have in common."""
    depth = 0
    below = [_folders(clip, root) for clip in clips]
    while len(below) > 1 and all(len(folders) > depth for folders in below) and len({folders[depth] for folders in below}) == 1:
        depth += 1
    return depth


def read_offsets(clips: Sequence[Path], root: Path) -> dict[Path, float]:
    """Offsets in frames from manifest.csv or manifest.jsonl, in a clip's folder or in one above it up to the one around `root`.

    A row names a clip ("path" or "clip", relative to the manifest) and its "offset"; "corrected" says that the sound was shifted since.
    """
    whole = {clip.absolute() for clip in clips}
    names = Counter(clip.name for clip in whole)
    by_name = {clip.name: clip for clip in whole if names[clip.name] == 1}
    offsets: dict[Path, float] = {}
    for manifest in _manifests(whole, root.absolute()):
        for row in _rows(manifest):
            entry = next((str(row[key]) for key in _CLIP_KEYS if row.get(key)), None)
            offset = _offset(row)
            if entry is None or offset is None:
                continue
            place = written_path(manifest.parent, entry).absolute()
            clip = place if place in whole else by_name.get(place.name)
            if clip is not None:
                offsets[clip] = offset
    return offsets


def _manifests(clips: Iterable[Path], root: Path) -> list[Path]:
    """Manifests that may speak of these clips, those further up first: the nearest one has the last word."""
    folders = {root, root.parent}
    for clip in clips:
        for folder in clip.parents:
            if folder in folders:
                break
            folders.add(folder)
            if not folder.is_relative_to(root):
                break
    found = [folder / name for folder in folders for name in MANIFESTS if (folder / name).is_file()]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _rows(manifest: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a manifest; those that cannot be read are passed over with a warning."""
    try:
        if manifest.suffix == ".csv":
            yield from read_table(manifest)
            return
        for line in read_text(manifest).split("\n"):
            row = json.loads(line) if line.strip() else None
            if isinstance(row, dict):
                yield row
    except (InputError, ValueError):
        logger.warning("%s cannot be read to its end: the offsets in the rest of it are not known", manifest)


def _sidecar(clip: Path) -> Mapping[str, Any]:
    """What the .json beside a clip says; of one with a line a key, as rendered heads have, the short lines alone are parsed."""
    try:
        text = clip.with_suffix(".json").read_text(encoding="utf-8")
        lines = [line.rstrip(",") for line in text.splitlines() if len(line) < _SHORT and _ENTRY.match(line)]
        content = json.loads("{" + ",".join(lines) + "}") if lines else json.loads(text)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _voice(value: object) -> str | None:
    """A voice by its name, with the synthesiser's where there is one."""
    if isinstance(value, dict):
        return "/".join(str(value[key]) for key in ("engine", "name") if key in value) or None
    return value if isinstance(value, str) and value else None


def _offset(entry: Mapping[str, Any]) -> float | None:
    """The offset that a row or a sidecar tells, 0 where it was corrected since; None where it tells none that is a number."""
    value = entry.get(_OFFSET_KEY)
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        offset = float(value)
    except ValueError:
        return None
    if not math.isfinite(offset):
        return None
    return 0.0 if str(entry.get(_CORRECTED_KEY)).lower() in _TRUE else offset


def _folders(clip: Path, root: Path) -> tuple[str, ...]:
    """Folders of a clip below `root`; of one that lies elsewhere, the one it lies in."""
    clip, root = clip.absolute(), root.absolute()
    return clip.relative_to(root).parts[:-1] if clip.is_relative_to(root) else (clip.parent.name,)


LOOK_FRAMES = 100  # frames of a clip that are looked at, from its start
SILENCE_DB = -50.0  # of full scale; a frame whose sound is softer is silent
LAGS = 8  # frames to either side over which sound and movement are compared
GRID = 16  # cells a side of the map of movement
_SIDE = 64  # pixels a side of the pictures that are looked at
_MOUTH_ROWS, _MOUTH_COLUMNS = slice(9, 16), slice(4, 12)  # cells of the lower middle of a face
_INDEPENDENT = 30  # moments of a clip that tell something new, about
_LEAST_FRAMES = 4 * LAGS + 1  # a clip with fewer says nothing about a lag
_NO_MOVEMENT = 0.01  # grey levels, over the whole picture
_STEP_SAMPLES = AUDIO_SAMPLE_RATE // VIDEO_FPS
_SOUND_GRID, _PICTURE_GRID = (8, 17), (8, 9)  # rows, columns: neighbours along a row are compared, one bit each
_SAME_SOUND, _SAME_PICTURE = 7, 10  # bits of 128 and of 64 in which two prints of the same thing may differ
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Look:
    """What one clip shows."""

    path: Path
    width: int
    height: int
    silent: float  # share of frames whose sound is below SILENCE_DB
    movement: float  # mean difference of neighbouring frames around the mouth, grey levels of 255
    sound_print: int  # 128 bits that survive another encoding
    picture_print: int  # 64 bits of the first frame


@dataclass
class Agreement:
    """How movement goes with sound, lag by lag, summed over clips. A peak at lag k means that the sound comes k frames late."""

    clips: int = 0
    cells: np.ndarray = field(default_factory=lambda: np.zeros((2 * LAGS + 1, GRID, GRID)))  # sums of correlations
    mouth: np.ndarray = field(default_factory=lambda: np.zeros(2 * LAGS + 1))
    mouth_squared: np.ndarray = field(default_factory=lambda: np.zeros(2 * LAGS + 1))

    def add(self, cells: np.ndarray, mouth: np.ndarray) -> None:
        """One more clip."""
        self.clips += 1
        self.cells += cells
        self.mouth += mouth
        self.mouth_squared += mouth**2

    def lag(self) -> int:
        """Frames by which the sound of most clips comes late; negative: early."""
        return int(self.mouth.argmax()) - LAGS

    def certainty(self) -> float:
        """The correlation at that lag in units of its standard error over clips; 0 for fewer than 8 clips."""
        if self.clips < 8:
            return 0.0
        best = int(self.mouth.argmax())
        mean = self.mouth[best] / self.clips
        variance = max(float(self.mouth_squared[best] / self.clips - mean**2), 1e-8)
        return float(mean / np.sqrt(variance / self.clips))

    def place(self) -> tuple[float, float]:
        """Where in the picture (x, y from 0 to 1) movement goes best with sound, at whatever lag."""
        _, row, column = np.unravel_index(self.cells.argmax(), self.cells.shape)
        return (float(column) + 0.5) / GRID, (float(row) + 0.5) / GRID

    def place_certainty(self) -> float:
        """The correlation at that place in units of what chance gives; the largest of so many is 4 or 5 by chance alone."""
        return float(self.cells.max() / max(1, self.clips) * np.sqrt(self.clips * _INDEPENDENT))


@dataclass
class Survey:
    """What was seen of some clips."""

    looks: list[Look] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)  # clips that could not be decoded, and why
    agreement: Agreement = field(default_factory=Agreement)


def survey(clips: Sequence[tuple[Path, int]], threads: int, show_progress: bool = False) -> Survey:
    """Look at clips (path, frames); a few are held at a time."""
    seen = Survey()
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as pool:
        bar = tqdm(total=len(clips), desc="looking", unit="clip", disable=None if show_progress else True, leave=False)
        with bar:
            for start in range(0, len(clips), 8 * threads):
                for found in pool.map(lambda clip: _try_look(*clip), clips[start : start + 8 * threads]):
                    bar.update()
                    if isinstance(found, tuple):
                        seen.broken[found[0]] = found[1]
                        continue
                    seen.looks.append(found.look)
                    if found.cells is not None and found.mouth is not None:
                        seen.agreement.add(found.cells, found.mouth)
    return seen


@dataclass(frozen=True)
class _Found:
    look: Look
    cells: np.ndarray | None
    mouth: np.ndarray | None


def _try_look(path: Path, frames: int) -> _Found | tuple[Path, str]:
    try:
        return _look(path, min(frames, LOOK_FRAMES))
    except InputError as error:
        return path, str(error)


def _look(path: Path, frames: int) -> _Found:
    """Look at the first frames of a clip. Raises InputError."""
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
    look = Look(
        path=path,
        width=width,
        height=height,
        silent=float((level < SILENCE_DB).mean()),
        movement=float(mouth.mean()),
        sound_print=_print(log_mel(samples).numpy(), _SOUND_GRID),
        picture_print=_print(pictures[0], _PICTURE_GRID),
    )
    together = min(len(cells), steps - 1)
    heard = np.maximum(level[1 : together + 1], SILENCE_DB - 20)
    if together + 1 < _LEAST_FRAMES or heard.std() < 1 or cells.mean() < _NO_MOVEMENT:
        return _Found(look, None, None)
    return _Found(look, _correlations(cells[:together], heard), _correlations(mouth[:together], heard))


def _correlations(movement: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Correlation along time of movement (f ...) with the sound level (f) at each lag: (2 LAGS + 1) ..."""
    inner = _standard(movement[LAGS : len(movement) - LAGS])
    lags = [_standard(level[LAGS + lag : len(level) - LAGS + lag]) for lag in range(-LAGS, LAGS + 1)]
    return np.tensordot(np.stack(lags), inner, axes=1) / len(inner)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / (values.std(0) + 1e-6)


def _print(values: np.ndarray, grid: tuple[int, int]) -> int:
    """One bit for each two neighbours in a row of a coarse picture of `values` (h w): which is larger."""
    small = cv2.resize(values.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def near_duplicates(looks: Iterable[Look]) -> list[tuple[Path, Path]]:
    """Pairs (a first one, another one) of clips of the same sound and picture, whatever their encoding; silent clips are left out."""
    buckets: dict[tuple[int, int], list[Look]] = defaultdict(list)
    pairs = []
    for look in looks:
        if look.silent > 0.9:
            continue
        keys = [(place, look.sound_print >> (16 * place) & 0xFFFF) for place in range(8)]  # 8 differing bits at least hit all of them
        for other in (other for key in keys for other in buckets[key]):
            same_sound = (look.sound_print ^ other.sound_print).bit_count() <= _SAME_SOUND
            if same_sound and (look.picture_print ^ other.picture_print).bit_count() <= _SAME_PICTURE:
                pairs.append((other.path, look.path))
                break
        for key in keys:
            buckets[key].append(look)
    return pairs


def exact_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same bytes; only files of equal size are read."""
    sizes: dict[int, list[Path]] = defaultdict(list)
    groups: dict[bytes, list[Path]] = defaultdict(list)
    path = None
    try:
        for path in paths:
            sizes[path.stat().st_size].append(path)
        for path in (path for alike in sizes.values() if len(alike) > 1 for path in alike):
            groups[_digest(path)].append(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read any more ({error.strerror}): ask again when the clips lie still") from None
    return [group for group in groups.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


SAMPLES = 16  # half of them in step
LEAST_STEPS = 60  # fewer do not show whether anything is learnt
LEARNT = 0.1  # a loss this much below chance has left it
_ENOUGH = 0.4  # a loss at which the answer is clear
_TRIES = 8  # samples that are drawn for each one that is kept
_TRIAL = 2  # samples of the step that is timed
_SMALL_SIDE = 64  # pixels across of what the small network sees
_WIDTHS = (32, 64, 96, 128)  # of the small network's blocks; the last one repeats
_LEARNING_RATES = {"real": 1e-4, "small": 1e-3}
_RECENT = 5  # steps that the last loss is averaged over


@dataclass(frozen=True)
class Overfit:
    """How the test went."""

    network: str  # what was trained, in words
    samples: int
    steps: int
    seconds: float
    first: float  # loss at the start
    last: float  # mean of the last few

    @property
    def learnt(self) -> bool:
        """Whether the loss has left chance."""
        return self.last < CHANCE - LEARNT

    @property
    def decided(self) -> bool:
        """Whether it was tried long enough to tell."""
        return self.learnt or self.steps >= LEAST_STEPS


def balanced_batch(dataset: "ClipDataset[SyncNetBatch]", samples: int = SAMPLES) -> SyncNetBatch:
    """Samples of different clips, half of them in step as far as can be. Raises InputError where clips cannot be read."""
    kept: dict[int, list[SyncNetBatch]] = {0: [], 1: []}
    for position in range(_TRIES * samples):
        sample = dataset[SampleIndex(position, position * max(1, len(dataset) // samples) % len(dataset))]
        same = kept[int(sample.label)]
        if len(same) < samples // 2:
            same.append(sample)
        if sum(map(len, kept.values())) == samples:
            break
    return collate([*kept[0], *kept[1]])


def overfit(
    batch: SyncNetBatch, real: SyncNet | None, *, lower: bool, seconds: float, device: torch.device, show_progress: bool = False
) -> Overfit:
    """Train on one batch for `seconds` at most. Where there is no `real` network, or it is too slow here, a small one takes its place.

    Args:
        lower: SyncNet looks at the lower half of the face.
    """
    frames, mel, label = pixels_of(batch, lower).to(device), batch.mel.to(device), batch.label.to(device)
    network, words, rate = None, "", ""
    if real is not None:
        step = _time_a_step(real.to(device), frames, mel, label)
        rate = f"a step of the configured network takes about {step:.3g} s here"
        if step * LEAST_STEPS <= seconds:
            network, words = real, f"the configured network ({_millions(real)}; {rate})"
    if network is None:
        frames = F.interpolate(frames, size=(_SMALL_SIDE * frames.shape[-2] // frames.shape[-1], _SMALL_SIDE), mode="area")
        network = small_network(frames, mel).to(device)
        why = f"{rate}, too slow for {seconds:.0f} s" if rate else "the configured one looks at latents"
        words = f"a small network ({_millions(network)}, {_SMALL_SIDE} pixels across; {why})"
    return _train(network, words, (frames, mel, label), seconds, _LEARNING_RATES["real" if network is real else "small"], show_progress)


def pixels_of(batch: SyncNetBatch, lower: bool) -> Tensor:
    """The pictures of a batch as SyncNet takes them, b (f c) h w in [-1, 1]."""
    return syncnet_frames(to_pixels(batch.faces), lower)


def small_network(frames: Tensor, mel: Tensor) -> StableSyncNet:
    """A small SyncNet that fits inputs of these sizes: b (f c) h w and b 1 80 t."""
    return StableSyncNet(_sizes(mel), _sizes(frames))


def _sizes(example: Tensor) -> EncoderSizes:
    """Blocks that halve a picture until one cell is left."""
    height, width = example.shape[-2:]
    factors: list[list[int]] = []
    while height > 1 or width > 1:
        factors.append([2 if height > 1 and height >= width // 2 else 1, 2 if width > 1 and width >= height // 2 else 1])
        height, width = (size // factor for size, factor in zip((height, width), factors[-1], strict=True))
    widths = [*_WIDTHS[: len(factors)], *[_WIDTHS[-1]] * (len(factors) - len(_WIDTHS))]
    return EncoderSizes(example.shape[1], widths, factors, [0] * len(factors))


def _time_a_step(network: nn.Module, frames: Tensor, mel: Tensor, label: Tensor) -> float:
    """Seconds of one training step with the whole batch; on a processor from one with a few samples, on a GPU from the second one."""
    samples = len(label) if frames.is_cuda else _TRIAL
    seconds = 0.0
    for _ in range(2 if frames.is_cuda else 1):
        start = time.monotonic()
        cosine_loss(*network(frames[:samples], mel[:samples]), label[:samples]).mean().backward()
        if frames.is_cuda:
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    return seconds * len(label) / min(samples, len(label))


def _train(network: SyncNet, words: str, batch: tuple[Tensor, Tensor, Tensor], seconds: float, rate: float, show_progress: bool) -> Overfit:
    frames, mel, label = batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    network.train()
    losses: deque[float] = deque(maxlen=_RECENT)
    first, steps, start = 0.0, 0, time.monotonic()
    with tqdm(desc="one batch by heart", unit="step", disable=None if show_progress else True, leave=False) as bar:
        while time.monotonic() - start < seconds:
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
    return Overfit(words, len(label), steps, time.monotonic() - start, first, sum(losses) / max(1, len(losses)))


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2g} M parameters"


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
