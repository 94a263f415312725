"""A small network that finds the landmarks of mouth and jaw on an aligned face."""

from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.constants import RGB
from latentsync.errors import WeightsError
from latentsync.weights import load_strict, read_checkpoint, read_state_dict

LANDMARK_STAGES = 4  # stages of the network, each at half the resolution of the one before
LANDMARK_NORM_GROUPS = 8  # groups of its norms, which divide every width


@dataclass
class LandmarkNetworkConfig:
    """Sizes of the landmark network."""

    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128])  # width of each stage
    head_channels: int = 64  # width of a cell of the last stage as the head sees it
    hidden: int = 192  # width inside the head


LANDMARK_SIDE = 128  # pixels: faces of any size are resized to this one
FIRST_ROW = 48  # of those; the rows from here on, five eighths of the face, hold the mouth however a face is tilted
FIRST_POINT, POINTS = 48, 20  # the mouth among the 68 landmarks of a face: corners, outer lips, inner lips
CORNERS = (0, 6)  # the mouth's corners among its points
INNER_LIPS = ((13, 19), (14, 18), (15, 17))  # points of the upper inner lip, each with the one of the lower lip below it
FIRST_ADDING = 2  # stages from here on have a second convolution; before, maps are large and it would cost most of the time
MIDDLE = 1  # place in INNER_LIPS of the pair in the middle
_HINT = "name a checkpoint that embedded.landmarks has written"


class MouthLandmarks(NamedTuple):
    """The mouths of n faces, in units of the face's side."""

    points: Tensor  # n 20 2: x and y of landmarks 48..67; 0 and 1 are the outer edges of the picture
    gap: Tensor  # n: between the inner lips
    width: Tensor  # n: between the corners


def measure(points: Tensor) -> MouthLandmarks:
    """The mouth that 20 points make: [... 20 2]."""
    return MouthLandmarks(points, lip_gaps(points).mean(-1), (points[..., CORNERS[0], :] - points[..., CORNERS[1], :]).norm(dim=-1))


def lip_gaps(points: Tensor) -> Tensor:
    """Distances of the inner lips at the three places of INNER_LIPS: points [... 20 2] -> [... 3]."""
    upper, lower = zip(*INNER_LIPS, strict=True)
    return (points[..., upper, :] - points[..., lower, :]).norm(dim=-1)


class LandmarkNetwork(nn.Module):
    """A small convolutional network: four stages of features, and a head that gives the landmarks of the mouth.

    Wherever it makes a map smaller, every cell above has the same number of weights to the map below, so that gradients which come back
    through the features do not favour every other pixel, as those of a 3 x 3 convolution of stride 2 do; and the features themselves are
    not normalised, so that they show brightness and colour, too. It computes the same for a face whatever other faces are in the batch.
    `mean` and `deviation`, 20 2 each, are those of the points over the training's faces.
    """

    def __init__(self, config: LandmarkNetworkConfig, mean: Tensor | None = None, deviation: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        self.stages = nn.ModuleList([nn.Conv2d(RGB, widths[0], 4, stride=2, padding=1)])
        self.stages.extend(Stage(above, width, adds=number >= FIRST_ADDING) for number, (above, width) in enumerate(pairwise(widths), 1))
        cells = (LANDMARK_SIDE >> LANDMARK_STAGES) * ((LANDMARK_SIDE - FIRST_ROW) >> LANDMARK_STAGES)
        self.head = nn.Sequential(
            *(nn.GroupNorm(LANDMARK_NORM_GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], config.head_channels, 1), nn.Flatten()),
            *(nn.Linear(config.head_channels * cells, config.hidden), nn.SiLU(), nn.Linear(config.hidden, POINTS * 2)),
        )
        nn.init.zeros_(self.head[-1].weight)  # begins with the mean mouth
        nn.init.zeros_(self.head[-1].bias)
        self.register_buffer("mean", torch.zeros(POINTS, 2) if mean is None else mean.float().clone())
        self.register_buffer("deviation", torch.ones(POINTS, 2) if deviation is None else deviation.float().clone())

    def forward(self, pixels: Tensor) -> MouthLandmarks:
        """Pixels n 3 r r in [-1, 1], of any resolution r -> the mouths."""
        return measure(self.mean + self.deviation * self.standardised_landmarks(self.features(pixels)))

    def standardised_landmarks(self, features: list[Tensor]) -> Tensor:
        """Features of n faces -> the points with mean 0 and standard deviation 1 over the training's faces: n 20 2."""
        return self.head(features[-1]).float().unflatten(1, (POINTS, 2))

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Pixels n 3 r r in [-1, 1] -> one map for each stage, n c h w, from 40 x 64 cells down to 5 x 8."""
        maps = [self.crop(pixels)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    @staticmethod
    def crop(pixels: Tensor) -> Tensor:
        """The rows of pixels n 3 r r that hold the mouth, at the network's size: n 3 80 128."""
        if pixels.shape[-2:] != (LANDMARK_SIDE, LANDMARK_SIDE):
            pixels = F.interpolate(pixels, size=(LANDMARK_SIDE, LANDMARK_SIDE), mode="bilinear", align_corners=False, antialias=True)
        return pixels[..., FIRST_ROW:, :]


class Stage(nn.Module):
    """Half the resolution, another width: a mean, a convolution, and one more that adds to it where maps are small enough."""

    def __init__(self, above: int, width: int, adds: bool) -> None:
        super().__init__()
        self.change = nn.Sequential(nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(above, width, 3, padding=1))
        norm = nn.GroupNorm(LANDMARK_NORM_GROUPS, width)
        self.add = nn.Sequential(norm, nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)) if adds else None

    def forward(self, x: Tensor) -> Tensor:
        """n c h w -> n c' h/2 w/2."""
        x = self.change(x)
        return x if self.add is None else x + self.add(x)


def published(config: LandmarkNetworkConfig, state_dict: dict[str, Tensor], step: int) -> dict[str, Any]:
    """What the file of a trained landmark network holds."""
    return {"state_dict": state_dict, "config": asdict(config), "global_step": step}


def load_landmark_network(path: Path | str) -> LandmarkNetwork:
    """A trained landmark network, on the CPU. Raises WeightsError."""
    sizes = read_checkpoint(path).get("config")
    known = {entry.name for entry in fields(LandmarkNetworkConfig)}
    if not isinstance(sizes, dict) or set(sizes) != known:
        raise WeightsError(f"{path} does not hold the sizes of a landmark network: {_HINT}.")
    try:
        network = LandmarkNetwork(LandmarkNetworkConfig(**sizes))
    except (TypeError, ValueError, RuntimeError):
        raise WeightsError(f"{path} holds sizes that no landmark network can have: {_HINT}.") from None
    load_strict(network, read_state_dict(path)[0], path, _HINT)
    return network
