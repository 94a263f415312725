"""Training of the landmark network: configuration, augmentation, data, step."""

import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from latentsync.config import Rule, RunConfig, TrainingConfig, TrainingDataConfig, at_least, enforce, read_config, shared_rules
from latentsync.data.clip_index import Catalog, ClipInfo, sidecar
from latentsync.data.sampling import Batch, ClipDataset
from latentsync.errors import InputError
from latentsync.faces.mask import to_pixels
from latentsync.models.landmark_network import (
    FIRST_POINT,
    LANDMARK_NORM_GROUPS,
    LANDMARK_SIDE,
    LANDMARK_STAGES,
    MIDDLE,
    POINTS,
    LandmarkNetwork,
    LandmarkNetworkConfig,
    MouthLandmarks,
    lip_gaps,
    measure,
    published,
)
from latentsync.published_config import NOT_PUBLISHED
from latentsync.training.logging import History
from latentsync.training.trainer import (
    BatchValidator,
    Losses,
    TrainingTask,
    ValidationSum,
    cache_folder,
    held_out_batches,
    open_catalogs,
    seed_everything,
    start_weights,
)
from latentsync.weights import load_strict, read_state_dict
from scripts.train_unet import parse_arguments, train_command

logger = logging.getLogger(__name__)


@dataclass
class LandmarkDataConfig(TrainingDataConfig):
    """Training data: frames of rendered clips with landmarks."""

    num_frames: int = 4  # frames of each clip in a sample
    batch_size: int = 16


@dataclass
class LandmarkRunConfig(RunConfig):
    """Steps and losses."""

    loss_weights: dict[str, float] = field(default_factory=lambda: {"landmarks": 1.0, "opening": 1.0})


@dataclass
class LandmarkConfig(TrainingConfig):
    """The landmark network and its training."""

    data: LandmarkDataConfig = field(default_factory=LandmarkDataConfig)
    model: LandmarkNetworkConfig = field(default_factory=LandmarkNetworkConfig)
    run: LandmarkRunConfig = field(default_factory=LandmarkRunConfig)


def load_landmark_config(path: Path | str, overrides: Sequence[str] = ()) -> LandmarkConfig:
    """Read the configuration of the landmark network's training; see `latentsync.config.load_config`. Raises ConfigError."""
    config, source = read_config(LandmarkConfig, NOT_PUBLISHED, path, overrides)
    widths = config.model.block_out_channels
    rules = [
        *at_least(1, "data", config.data, "num_frames"),
        Rule(
            "model.block_out_channels",
            len(widths) == LANDMARK_STAGES and all(width > 0 and width % LANDMARK_NORM_GROUPS == 0 for width in widths),
            f"{LANDMARK_STAGES} widths, each a multiple of {LANDMARK_NORM_GROUPS}",
        ),
        *at_least(1, "model", config.model, "head_channels", "hidden"),
        *shared_rules(config),
    ]
    enforce(config, rules, source)
    return config


# Augmentation

# the mouth's 20 points (landmarks 48..67) in the order in which a mirror shows them
MIRRORED = (*range(6, -1, -1), *range(11, 6, -1), *range(16, 11, -1), *range(19, 16, -1))
# how far faces are moved ...
LARGEST_SHIFT = 0.08  # of the face's side
LARGEST_TURN = math.radians(12)
LARGEST_SCALE = 1.15
# ... and how often each of the others happens
MIRROR, OCCLUDE, RECOLOUR, GREY, SOFTEN, SHRINK, NOISE, COMPRESS = 0.5, 0.25, 0.8, 0.05, 0.4, 0.35, 0.4, 0.5


def degrade(face: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Augment a face uint8 h h 3 (RGB) and the points 20 2 of its mouth in units of its side.

    In the order of an image's origin: pose, occlusion and light, then lens, sensor and codec.
    """
    face, points = transform(face, points, rng)
    if rng.random() < MIRROR:
        face, points = mirror(face, points)
    if rng.random() < OCCLUDE:
        face = occlude(face, rng)
    values = recolour(face, rng) if rng.random() < RECOLOUR else face.astype(np.float32)
    if rng.random() < SOFTEN:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 2.2) * len(face) / 128)
    if rng.random() < SHRINK:
        values = shrink(values, rng)
    if rng.random() < NOISE:
        values = add_noise(values, rng)
    face = np.clip(values, 0, 255).round().astype(np.uint8)
    if rng.random() < COMPRESS:
        face = compress(face, int(rng.integers(12, 90)))
    return np.ascontiguousarray(face), points.astype(np.float32)


def transform(face: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rotate and scale about the centre, and shift; the border is repeated."""
    side = len(face)
    angle = rng.uniform(-LARGEST_TURN, LARGEST_TURN)
    scale = LARGEST_SCALE ** rng.uniform(-1, 1)
    shift = np.clip(rng.normal(0, LARGEST_SHIFT / 2, 2), -LARGEST_SHIFT, LARGEST_SHIFT)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.full(2, 0.5)
    offset = middle - turn @ middle + shift  # new = turn @ old + offset, in units of the side
    centres = side * offset + turn @ middle - middle  # the same for numbers of pixels, whose centres lie half a pixel in
    matrix = np.column_stack([turn, centres])
    moved = cv2.warpAffine(face, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved, points @ turn.T + offset


def mirror(face: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror; points on the left get the numbers of those on the right."""
    points = points[list(MIRRORED)]
    return face[:, ::-1], np.column_stack([1 - points[:, 0], points[:, 1]])


def occlude(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover part with a soft patch of one colour or of another part of the picture, as a hand, a microphone or a caption does."""
    side = len(face)
    middle = tuple(int(value) for value in rng.uniform([0.1, 0.5], [0.9, 1.0]) * side)
    axes = tuple(int(value) for value in rng.uniform(0.03, 0.16, 2) * side)
    alpha = np.zeros((side, side), np.float32)
    cv2.ellipse(alpha, middle, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.3, 2.0))[..., None]
    patch = np.roll(face, tuple(rng.integers(side, size=2)), axis=(0, 1)) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    return (face + (patch - face.astype(np.float32)) * alpha).round().astype(np.uint8)


def recolour(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change gamma, gain and offset of each channel, and saturation. uint8 h w 3 -> float32 h w 3."""
    light = np.linspace(0, 1, 256)[:, None] ** (1.6 ** rng.uniform(-1, 1))  # of each grey level
    table = 255 * light * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.25) + rng.normal(0, 6, 3)
    saturation = 0.0 if rng.random() < GREY else rng.uniform(0.5, 1.4)
    blend = np.full((3, 3), (1 - saturation) / 3) + saturation * np.eye(3)
    return cv2.transform(cv2.LUT(face, table.astype(np.float32)[None]), blend)


def shrink(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Downscale and upscale again."""
    side = len(values)
    small = max(8, round(side * rng.uniform(0.25, 0.8)))
    enlarge = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(3)]
    return cv2.resize(cv2.resize(values, (small, small), interpolation=cv2.INTER_AREA), (side, side), interpolation=enlarge)


def add_noise(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise of a grain of one to four pixels, as of sensors and of unfinished diffusion."""
    side = len(values)
    grain = int(rng.integers(1, 5))
    cells = -(-side // grain)
    noise = np.float32(rng.uniform(1, 14)) * rng.standard_normal((cells, cells, 3), dtype=np.float32)
    return values + cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR)


def compress(face: np.ndarray, quality: int) -> np.ndarray:
    """Encode as JPEG of a quality of 1..100 and decode; OpenCV wants BGR."""
    _, encoded = cv2.imencode(".jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


# Data

CACHED_CLIPS = 2000  # whose landmarks a process holds, some megabytes
_ADVICE = "render clips with `python -m embedded.talking_heads`"


@dataclass(frozen=True)
class LandmarkBatch(Batch):
    """Faces and the landmarks of their mouths."""

    faces: Tensor  # uint8 b f h w 3
    points: Tensor  # float32 b f 20 2: landmarks 48..67 in units of the face's side, 0 = outer edge of the first pixel


class LandmarkDataset(ClipDataset[LandmarkBatch]):
    """Samples for the landmark network.

    Args:
        num_frames: faces of a sample: drawn from the whole clip, or, where they are not `drawn`, as far apart as they can be.
        degraded: whether faces are augmented, see `degrade`.
    """

    batch_type = LandmarkBatch

    def __init__(
        self, catalog: Catalog, *, num_frames: int, seed: int, drawn: bool = True, degraded: bool = True, faces_cache: Path | None = None
    ) -> None:
        super().__init__(catalog, num_frames=num_frames, resolution=LANDMARK_SIDE, seed=seed, faces_cache=faces_cache)
        self.drawn, self.degraded = drawn, degraded

    def sample(self, clip: ClipInfo, rng: np.random.Generator, problems: list[str]) -> dict[str, Tensor | None]:
        points = read_points(clip.path)
        frames = min(clip.frames, len(points))
        spread = np.linspace(0, frames - 1, self.num_frames).round().astype(int)
        indices = np.sort(rng.integers(frames, size=self.num_frames)) if self.drawn else spread
        faces, points = self.faces(clip, indices.tolist()).numpy(), points[indices]  # f h w 3, f 20 2
        if self.degraded:
            pairs = [degrade(*pair, rng) for pair in zip(faces, points, strict=True)]
            faces, points = (np.stack(values) for values in zip(*pairs, strict=True))
        return {"faces": torch.from_numpy(faces), "points": torch.from_numpy(points)}


class RenderedLabels(NamedTuple):
    """What is known of the n frames of a rendered clip."""

    landmarks: np.ndarray  # float64 n 68 2, pixels; 0 = outer edge of the first pixel
    lip_gap: Tensor  # float64 n, centimetres
    size: tuple[int, int]  # width and height of the picture, pixels
    split: str  # to which people and sentences it belongs: train, validation, test


def read_labels(clip: Path) -> RenderedLabels:
    """The labels beside a rendered clip. Raises InputError where they are missing or incomplete."""
    path = sidecar(clip)
    try:
        content = json.loads(path.read_bytes())
        landmarks = np.asarray(content["landmarks"], dtype=np.float64)
        gap = torch.tensor(content["lip_gap_cm"], dtype=torch.float64)
        labels = RenderedLabels(landmarks, gap, (content["settings"]["width"], content["settings"]["height"]), content["plan"]["split"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no landmarks and lips ({type(error).__name__}): {_ADVICE}") from None
    if landmarks.shape[1:] != (68, 2) or not len(landmarks) or gap.shape != landmarks.shape[:1] or not np.isfinite(landmarks).all():
        raise InputError(f"{path} does not hold 68 landmarks and the lips of each frame: {_ADVICE}")
    return labels


@lru_cache(maxsize=CACHED_CLIPS)  # parsing takes time
def read_points(clip: Path) -> np.ndarray:
    """The mouth's points in all frames of a rendered clip, in units of the face's side: float32 n 20 2; do not change them.

    Raises InputError: no landmarks, or the picture is not square.
    """
    labels = read_labels(clip)
    width, height = labels.size
    if width != height:
        raise InputError(f"{clip} shows {width} x {height} pixels, not a square aligned face: {_ADVICE}")
    return labels.landmarks[:, FIRST_POINT : FIRST_POINT + POINTS].astype(np.float32) / width


# Losses and validation

LANDMARKS, OPENING = "landmarks", "opening"
BEND = 0.1  # standard deviations: errors from here on count by their size, smaller ones by its square
WHEN_DEGRADED = ("point_error", "gap_error", "gap_r")  # measures of degraded faces
STILL = 1e-6  # variance, in squared units of the face's side, of a mouth that does not move


class MouthScale(NamedTuple):
    """Statistics of the training data; in units of these deviations a constant guess has a loss of about 1."""

    mean: Tensor  # of the points, 20 2
    deviation: MouthLandmarks


class LandmarkStep:
    """Smooth L1, in standard deviations, of the points, and of the gap between the lips and the width of the mouth."""

    def __init__(self, scale: MouthScale, weights: Mapping[str, float]) -> None:
        self.deviation = scale.deviation
        self.wanted = frozenset(name for name, weight in weights.items() if weight > 0)

    def __call__(self, model: nn.Module, batch: LandmarkBatch) -> Losses:
        """The losses of a batch, each a scalar."""
        predicted = model(to_pixels(batch.faces).flatten(0, 1))
        true = measure(batch.points.flatten(0, 1))
        points, gap, width = (
            F.smooth_l1_loss(found / deviation.to(known), known / deviation.to(known), beta=BEND)
            for found, known, deviation in zip(predicted, true, self.deviation, strict=True)
        )
        losses = {LANDMARKS: points, OPENING: (gap + width) / 2}
        return {name: loss for name, loss in losses.items() if name in self.wanted}


class LandmarkValidator(BatchValidator):
    """Errors of the points and of the gap between the lips.

    `point_error`: mean distance of the points in units of the face's side; `point_error_of_mouth`: in units of the mouth's width;
    `gap_error`: mean error of the gap in units of the face's side; `gap_r`: Pearson's r of the gap within a clip, mean over clips;
    `gap_r_middle`: of the middle of the lips alone; `gap_r_people`: over the frames of all clips. For degraded faces WHEN_DEGRADED alone.
    """

    def __init__(self, batches: Iterable[LandmarkBatch], degraded: bool = False) -> None:
        super().__init__(batches)
        self.degraded = degraded
        self.name = "held-out faces, degraded" if degraded else "held-out faces"

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
        """The measures."""
        predicted, true = [], []
        for batch in self.batches_for(model):
            predicted.append(model(to_pixels(batch.faces).flatten(0, 1)).points.unflatten(0, batch.points.shape[:2]).cpu())
            true.append(batch.points.cpu())
        found = measures(torch.cat(predicted), torch.cat(true)) if predicted else {}
        return {f"{name}_degraded": found[name] for name in WHEN_DEGRADED if name in found} if self.degraded else found


def measures(predicted: Tensor, true: Tensor) -> dict[str, ValidationSum]:
    """See `LandmarkValidator`; points b f 20 2 of both."""
    apart = (predicted - true).norm(dim=-1).mean(-1)  # b f
    mouths, reference = measure(predicted), measure(true)
    moving = reference.gap.var(dim=1, correction=0) > STILL  # clips in which something can be followed
    middle = pearson(lip_gaps(predicted)[moving][..., MIDDLE], lip_gaps(true)[moving][..., MIDDLE])
    return {
        "point_error": tally(apart),
        "point_error_of_mouth": tally(apart / reference.width),
        "gap_error": tally((mouths.gap - reference.gap).abs()),
        "gap_r": tally(pearson(mouths.gap[moving], reference.gap[moving])),
        "gap_r_middle": tally(middle),
        "gap_r_people": tally(pearson(mouths.gap.flatten(), reference.gap.flatten()).expand_as(reference.gap)),
    }


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r along the last axis: [... n] -> [...]; 0 where either does not vary."""
    first, second = (values.double() - values.double().mean(-1, keepdim=True) for values in (first, second))
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(-1) / lengths.clamp(min=torch.finfo(torch.float32).tiny)


def tally(values: Tensor) -> ValidationSum:
    """Their sum and number."""
    return ValidationSum(float(values.sum()), values.numel())


# Building the training, and the command

SCALE_CLIPS = 64  # clips from which the deviations are computed
FRAMES_COMPARED = 24  # faces of each held-out clip, spread over the clip
LEAST_DEVIATION = 0.005  # of the face's side: lower bound of deviations
CLIPS_AT_ONCE = 4  # held-out clips in one pass


def build_landmarks(config: LandmarkConfig, accelerator: Accelerator, show_progress: bool = True) -> TrainingTask:
    """Everything that the training of the landmark network needs. Raises InputError, ConfigError, WeightsError."""
    data, run = config.data, config.run
    trained, held_out = open_catalogs(data, data.num_frames, accelerator, show_progress)
    faces = cache_folder(data) if data.cache_faces else None
    seed_everything(run, accelerator)
    scale = mouth_scale(trained)
    network = LandmarkNetwork(config.model, scale.mean, scale.deviation.points)
    if (start := start_weights(config.ckpt, data)) is not None:
        load_strict(network, read_state_dict(start)[0], start, "name the sizes that it was trained with")
    logger.info("Training %.2f million parameters", sum(part.numel() for part in network.parameters()) / 1e6)
    validators = []
    for degraded in (False, True):
        if held_out is not None:
            dataset = LandmarkDataset(
                held_out, num_frames=FRAMES_COMPARED, seed=run.seed, drawn=False, degraded=degraded, faces_cache=faces
            )
            validators.append(LandmarkValidator(held_out_batches(dataset, config, accelerator, CLIPS_AT_ONCE), degraded))

    def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
        return published(config.model, dict(weights), step)

    return TrainingTask(
        model=network,
        step=LandmarkStep(scale, run.loss_weights),
        dataset=LandmarkDataset(trained, num_frames=data.num_frames, seed=run.seed, faces_cache=faces),
        publish=publish,
        validators=validators,
    )


def mouth_scale(catalog: Catalog) -> MouthScale:
    """Mean and deviation of the first clips' landmarks, augmentation included. Raises InputError."""
    points = torch.from_numpy(np.concatenate([read_points(clip.path) for clip in catalog.clips[:SCALE_CLIPS]]))  # n 20 2
    mouths = measure(points)
    shift, scale = LARGEST_SHIFT / 2, math.log(LARGEST_SCALE) / math.sqrt(3)  # standard deviations of the augmentation
    moved = (points.var(0, correction=0) + shift**2).sqrt()
    sizes = ((size.var(correction=0) + (scale * size.mean()) ** 2).sqrt() for size in (mouths.gap, mouths.width))
    return MouthScale(points.mean(0), MouthLandmarks(moved, *(size.clamp(min=LEAST_DEVIATION) for size in sizes)))


DEFAULT_CONFIG = Path(__file__).resolve().parent / "configs" / "landmarks.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    description = "Train a network that finds the landmarks of the mouth on aligned faces, on rendered clips."
    return train_command(
        parse_arguments("python -m embedded.landmarks", description, DEFAULT_CONFIG, arguments), load_landmark_config, build_landmarks
    )


if __name__ == "__main__":
    sys.exit(main())
