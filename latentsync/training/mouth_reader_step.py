"""The mouth reader's training: faces to losses, and how well it reads people that it was not trained on."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.data.mouth_dataset import MouthBatch
from latentsync.faces.mask import to_pixels
from latentsync.models.mouth_reader import MIDDLE, Mouth, lip_gaps, measure
from latentsync.training.feed import Problems
from latentsync.training.parts import Losses, Tally
from latentsync.training.statistics import pearson

LANDMARKS, OPENING = "landmarks", "opening"
BEND = 0.1  # standard deviations: errors from here on count by their size, smaller ones by its square
WHEN_DEGRADED = ("point_error", "gap_error", "gap_r")  # measures of degraded faces
STILL = 1e-6  # variance, in squared units of the face's side, of a mouth that does not move


class MouthScale(NamedTuple):
    """What is read off the faces of a training; in units of these deviations a constant guess loses about 1."""

    mean: Tensor  # of the points, 20 2
    deviation: Mouth


class MouthReaderStep:
    """Smooth L1 of the points, and of the gap between the lips and the width of the mouth, which other parts of the project are after."""

    def __init__(self, scale: MouthScale, weights: Mapping[str, float]) -> None:
        self.deviation = scale.deviation
        self.wanted = frozenset(name for name, weight in weights.items() if weight > 0)

    def __call__(self, model: nn.Module, batch: MouthBatch) -> Losses:
        """The losses of a batch, each a scalar."""
        seen = model(to_pixels(batch.faces).flatten(0, 1))
        true = measure(batch.points.flatten(0, 1))
        losses = {
            LANDMARKS: distance(seen.points, true.points, self.deviation.points),
            OPENING: (distance(seen.gap, true.gap, self.deviation.gap) + distance(seen.width, true.width, self.deviation.width)) / 2,
        }
        return {name: loss for name, loss in losses.items() if name in self.wanted}


def distance(seen: Tensor, true: Tensor, deviation: Tensor) -> Tensor:
    """Smooth L1 in standard deviations, a scalar."""
    deviation = deviation.to(true)
    return F.smooth_l1_loss(seen / deviation, true / deviation, beta=BEND)


class MouthReaderValidator:
    """How far off the points are, and how well the gap between the lips is followed.

    Measures, for degraded faces the first, third and fourth: `point_error`, mean distance of the points in units of the face's side;
    `point_error_of_mouth`, the same in units of the mouth's width; `gap_error`, mean error of the gap in units of the face's side;
    `gap_r`, Pearson's r of the gap within a clip, averaged over clips; `gap_r_middle`, the same of the middle of the lips alone;
    `gap_r_people`, r over the frames of all clips of this process.

    Args:
        batches: gives the same batches, this process's share, every time it is called.
        degraded: the faces are degraded, and the measures say so in their names.
    """

    def __init__(self, batches: Iterable[MouthBatch], degraded: bool = False) -> None:
        self.batches, self.degraded = batches, degraded
        self.name = "held-out faces, degraded" if degraded else "held-out faces"
        self._problems = Problems()

    def __call__(self, model: nn.Module, step: int) -> dict[str, Tally]:
        """The measures."""
        device = next(model.parameters()).device
        seen, true = [], []
        for batch in self.batches:
            self._problems.tell(batch.problems)
            seen.append(model(to_pixels(batch.faces.to(device)).flatten(0, 1)).points.unflatten(0, batch.points.shape[:2]).cpu())
            true.append(batch.points)
        found = measures(torch.cat(seen), torch.cat(true)) if seen else {}
        return {f"{name}_degraded": found[name] for name in WHEN_DEGRADED if name in found} if self.degraded else found


def measures(seen: Tensor, true: Tensor) -> dict[str, Tally]:
    """See `MouthReaderValidator`; points b f 20 2 of both."""
    apart = (seen - true).norm(dim=-1).mean(-1)  # b f
    mouths, truth = measure(seen), measure(true)
    moving = truth.gap.var(dim=1, correction=0) > STILL  # clips in which something can be followed
    middle = pearson(lip_gaps(seen)[moving][..., MIDDLE], lip_gaps(true)[moving][..., MIDDLE])
    return {
        "point_error": tally(apart),
        "point_error_of_mouth": tally(apart / truth.width),
        "gap_error": tally((mouths.gap - truth.gap).abs()),
        "gap_r": tally(pearson(mouths.gap[moving], truth.gap[moving])),
        "gap_r_middle": tally(middle),
        "gap_r_people": Tally(float(pearson(mouths.gap.flatten(), truth.gap.flatten())) * truth.gap.numel(), truth.gap.numel()),
    }


def tally(values: Tensor) -> Tally:
    """Their sum and number."""
    return Tally(float(values.sum()), values.numel())
