"""S3FD: finds the faces of whole pictures, small ones too. Forward only.

Origin: "S3FD: Single Shot Scale-invariant Face Detector" (arXiv 1708.05237), on the layers of VGG-16 (arXiv 1409.1556) and the prior boxes
of SSD (arXiv 1512.02325). Written for this project from the papers. Parameter names and shapes are those of the published file
sfd_face.pth, which comes with the SyncNet of the repository joonson/syncnet_python (MIT).
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import make_layers
from torchvision.ops import nms

from latentsync.weights import load_frozen

MEAN = (123.0, 117.0, 104.0)  # RGB, subtracted from pixels in 0..255
STRIDES = (4, 8, 16, 32, 64, 128)  # pixels between the places of each of the six maps
MIN_SIZES = (16, 32, 64, 128, 256, 512)  # side of the square prior box of each map, pixels
VARIANCES = (0.1, 0.2)  # of the shifts of middles, and of the logarithms of sizes
MAX_CANDIDATES = 5000  # best boxes of one picture that go through suppression
MIN_SIDE = 32  # pixels: smaller pictures leave nothing after five halvings

_SOURCES = (256, 512, 512, 1024, 512, 256)  # channels of the six maps
_BACKGROUNDS = 3  # scores for "no face" of the finest map, the largest of which counts
_ENDS = (16, 23, 30, 35)  # where the first four maps leave the layers of VGG-16
_HINT = "use sfd_face.pth of the repository joonson/syncnet_python"


class L2Norm(nn.Module):
    """Each place scaled to length one along its channels, then each channel by a learned factor."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) * self.weight[:, None, None]


class S3FD(nn.Module):
    """Six maps of ever coarser places, each with a prior box; every place says how its box is shifted and whether it holds a face."""

    def __init__(self) -> None:
        super().__init__()
        layers = make_layers([64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"])  # of VGG-16
        layers[16].ceil_mode = True  # the third halving keeps an odd last row
        fully_connected = [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]
        self.vgg = nn.Sequential(*layers, *fully_connected)
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = L2Norm(256, 10), L2Norm(512, 8), L2Norm(512, 5)
        self.extras = nn.Sequential(
            nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, 2, 1), nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, 2, 1)
        )
        scores = [_BACKGROUNDS + 1, *[2] * (len(_SOURCES) - 1)]
        self.loc = nn.ModuleList(nn.Conv2d(channels, 4, 3, padding=1) for channels in _SOURCES)
        self.conf = nn.ModuleList(nn.Conv2d(channels, count, 3, padding=1) for channels, count in zip(_SOURCES, scores, strict=True))

    def heads(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Shifts b 4 h w and scores b 2 h w of each map (b 4 h w of the finest, whose first three are all background)."""
        maps, x = [], pixels
        for start, end in zip((0, *_ENDS), _ENDS, strict=False):
            x = self.vgg[start:end](x)
            maps.append(x)
        for layer in self.extras:
            x = F.relu(layer(x))
            maps.append(x)
        norms = (self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3)
        sources = [*[norm(x) for norm, x in zip(norms, maps, strict=False)], maps[3], maps[5], maps[7]]
        return [(loc(x), conf(x)) for x, loc, conf in zip(sources, self.loc, self.conf, strict=True)]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels b 3 h w (RGB in 0..255 minus `MEAN`) -> boxes x0 y0 x1 y1 b n 4, shares of width and height, and their scores b n."""
        heads = self.heads(pixels)
        priors = prior_boxes([loc.shape[2:] for loc, _ in heads], pixels.shape[2], pixels.shape[3]).to(pixels.device)
        shifts = torch.cat([loc.float().flatten(2).transpose(1, 2) for loc, _ in heads], 1)  # b n 4
        scores = torch.cat([torch.cat([c[:, :-1].amax(1, keepdim=True), c[:, -1:]], 1).float().flatten(2) for _, c in heads], 2)  # b 2 n
        middle = priors[:, :2] + shifts[..., :2] * VARIANCES[0] * priors[:, 2:]
        half = priors[:, 2:] * (shifts[..., 2:] * VARIANCES[1]).exp() / 2
        return torch.cat([middle - half, middle + half], -1), scores.softmax(1)[:, 1]

    @torch.inference_mode()
    def detect(
        self, frames: np.ndarray | Sequence[np.ndarray], scale: float = 0.25, threshold: float = 0.9, max_overlap: float = 0.1
    ) -> list[np.ndarray]:
        """The faces of pictures uint8 n h w 3, RGB, of one size, in one batch: float32 k 5 of each, best first.

        x0 y0 x1 y1 in pixels of the picture, then the probability, over `threshold`. Pictures are resized by `scale`, but not below
        `MIN_SIDE` pixels a side; boxes that overlap a better one by more than `max_overlap` are dropped.
        """
        if len(frames) == 0:
            return []
        height, width = frames[0].shape[:2]
        weight = self.loc[0].weight
        pixels = torch.from_numpy(shrink(frames, scale)).to(weight.device).permute(0, 3, 1, 2)
        mean = torch.tensor(MEAN, device=weight.device).view(3, 1, 1)
        boxes, scores = self((pixels.float() - mean).to(weight.dtype))
        size = torch.tensor([width, height, width, height], dtype=torch.float32, device=weight.device)
        found = []
        for own_boxes, own_scores in zip(boxes, scores, strict=True):
            own_boxes, own_scores = suppress(own_boxes, own_scores)
            sure = own_scores > threshold
            own_boxes, own_scores = own_boxes[sure] * size, own_scores[sure]
            best = nms(own_boxes, own_scores, max_overlap)
            found.append(torch.cat([own_boxes[best], own_scores[best, None]], 1).cpu().numpy())
        return found


def prior_boxes(sizes: Sequence[Sequence[int]], height: int, width: int) -> Tensor:
    """Middle x, y, width, height of each place's prior box as shares of the picture: float32 n 4; `sizes`: h, w of maps, finest first."""
    boxes = []
    for (rows, columns), stride, side in zip(sizes, STRIDES, MIN_SIZES, strict=True):
        y, x = np.mgrid[:rows, :columns].reshape(2, -1) + 0.5
        boxes.append(np.stack([x * stride / width, y * stride / height, np.full(len(x), side / width), np.full(len(x), side / height)], 1))
    return torch.from_numpy(np.concatenate(boxes).astype(np.float32))


def suppress(boxes: Tensor, scores: Tensor, min_score: float = 0.05, max_overlap: float = 0.3, keep: int = 750) -> tuple[Tensor, Tensor]:
    """At most `keep` boxes k 4 of n 4 (corners), those with the best scores n that do not overlap a better one; and their scores k."""
    likely = scores > min_score
    boxes, scores = boxes[likely], scores[likely]
    scores, order = scores.sort(descending=True, stable=True)
    boxes, scores = boxes[order[:MAX_CANDIDATES]], scores[:MAX_CANDIDATES]
    best = nms(boxes, scores, max_overlap)[:keep]
    return boxes[best], scores[best]


def shrink(frames: np.ndarray | Sequence[np.ndarray], scale: float) -> np.ndarray:
    """Pictures uint8 n h w 3 at a scale, bilinear without a filter, as the network was used; no side under `MIN_SIDE`."""
    scale = max(scale, MIN_SIDE / min(frames[0].shape[:2]))
    return np.stack([cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) for frame in frames])


def load_s3fd(path: Path | str) -> S3FD:
    """The detector of a file like sfd_face.pth; raises WeightsError when the file is missing, unreadable or holds another network."""
    return load_frozen(S3FD, path, _HINT)
