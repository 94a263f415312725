"""hyperIQA: image quality, 0 to 100, by a small network whose weights a large one predicts for each picture. Forward only.

Origin: "Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network" (Su et al., CVPR 2020), repository
SSL92/hyperIQA (MIT), on ResNet-50 (arXiv 1512.03385) as torchvision has it. Written for this project from the papers. Parameter names and
shapes are those of the published file koniq_pretrained.pkl, trained on the pictures of KonIQ-10k.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from latentsync.errors import InputError
from latentsync.weights import load_frozen

SIDE = 224  # pixels of its inputs
MEAN = (0.485, 0.456, 0.406)  # RGB of ImageNet, of pixels in 0..1
STD = (0.229, 0.224, 0.225)
WIDTHS = (224, 112, 56, 28, 14, 1)  # of the small network, from what it is given to the score

_CELLS = 7  # a side of the coarsest map
_LOCAL = 16  # numbers that each of the three finer maps gives to the small network
_HYPER = 112  # channels from which the small network is predicted
_HINT = "use koniq_pretrained.pkl of the repository SSL92/hyperIQA"


class Backbone(ResNet):
    """ResNet-50 without its classifier, that also gives a few numbers about the content of each of its four maps."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        del self.fc
        self.lda1_pool, self.lda1_fc = _squeeze(256, 16), nn.Linear(16 * 64, _LOCAL)
        self.lda2_pool, self.lda2_fc = _squeeze(512, 32), nn.Linear(32 * 16, _LOCAL)
        self.lda3_pool, self.lda3_fc = _squeeze(1024, 64), nn.Linear(64 * 4, _LOCAL)
        self.lda4_pool, self.lda4_fc = nn.AvgPool2d(_CELLS, stride=_CELLS), nn.Linear(2048, WIDTHS[0] - 3 * _LOCAL)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """b 3 224 224 -> the coarsest map b 2048 7 7, and the numbers about all four b 224."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        pools = (self.lda1_pool, self.lda2_pool, self.lda3_pool, self.lda4_pool)
        numbers = []
        for layer, pool, linear in zip(layers, pools, (self.lda1_fc, self.lda2_fc, self.lda3_fc, self.lda4_fc), strict=True):
            x = layer(x)
            numbers.append(linear(pool(x).flatten(1)))
        return x, torch.cat(numbers, 1)


def _squeeze(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.AvgPool2d(_CELLS, stride=_CELLS))


class HyperNet(nn.Module):
    """The large network: a picture to the weights of the small network that scores it."""

    def __init__(self) -> None:
        super().__init__()
        self.res = Backbone()
        self.conv1 = nn.Sequential(
            nn.Conv2d(2048, 1024, 1), nn.ReLU(), nn.Conv2d(1024, 512, 1), nn.ReLU(), nn.Conv2d(512, _HYPER, 1), nn.ReLU()
        )
        self.fc1w_conv, self.fc1b_fc = _weight_head(0), nn.Linear(_HYPER, WIDTHS[1])
        self.fc2w_conv, self.fc2b_fc = _weight_head(1), nn.Linear(_HYPER, WIDTHS[2])
        self.fc3w_conv, self.fc3b_fc = _weight_head(2), nn.Linear(_HYPER, WIDTHS[3])
        self.fc4w_conv, self.fc4b_fc = _weight_head(3), nn.Linear(_HYPER, WIDTHS[4])
        self.fc5w_fc, self.fc5b_fc = nn.Linear(_HYPER, WIDTHS[4]), nn.Linear(_HYPER, WIDTHS[5])

    def predict_weights(self, pixels: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Inputs b 224 of the small networks of pictures b 3 224 224; weights b out in and biases b out of each of their layers."""
        content, inputs = self.res(pixels)
        content = self.conv1(content)  # b 112 7 7
        mean = content.mean((2, 3))  # b 112
        heads = (self.fc1w_conv, self.fc2w_conv, self.fc3w_conv, self.fc4w_conv)
        weights = [head(content).reshape(-1, WIDTHS[i + 1], WIDTHS[i]) for i, head in enumerate(heads)]
        weights.append(self.fc5w_fc(mean)[:, None])
        return inputs, weights, [layer(mean) for layer in (self.fc1b_fc, self.fc2b_fc, self.fc3b_fc, self.fc4b_fc, self.fc5b_fc)]

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores b, about 0 (bad) to 100 (good), of pictures b 3 224 224 (RGB, normalised by `MEAN` and `STD`)."""
        x, weights, biases = self.predict_weights(pixels)
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.einsum("boi,bi->bo", weight, x.sigmoid() if layer else x) + bias
        return x[:, 0]

    @torch.inference_mode()
    def score(self, frames: Sequence[np.ndarray]) -> float:
        """Mean score of the middles of pictures uint8 h w 3, RGB, of one size. Raises InputError under 224 pixels a side."""
        weight = self.conv1[0].weight
        pictures = torch.from_numpy(np.stack([middle_square(frame) for frame in frames])).to(weight.device)
        mean, std = (torch.tensor(values, device=weight.device) for values in (MEAN, STD))
        pixels = ((pictures.float() / 255 - mean) / std).permute(0, 3, 1, 2)  # b 3 224 224
        return float(self(pixels.to(weight.dtype)).float().mean())


def _weight_head(layer: int) -> nn.Conv2d:
    """Predicts the weights of one layer of the small network, a part of them at each of the 7 x 7 places."""
    return nn.Conv2d(_HYPER, WIDTHS[layer] * WIDTHS[layer + 1] // _CELLS**2, 3, padding=1)


def chosen_frames(count: int) -> tuple[int, int, int]:
    """The frames by which a clip of `count` frames is scored: first, middle, last."""
    return 0, count // 2, count - 1


def middle_square(frame: np.ndarray) -> np.ndarray:
    """The middle of a frame h w 3: 224 224 3. Raises InputError where the frame is smaller."""
    height, width = frame.shape[:2]
    if min(height, width) < SIDE:
        raise InputError(f"hyperIQA takes pictures of at least {SIDE} x {SIDE} pixels, these have {width} x {height}: use larger ones.")
    top, left = round((height - SIDE) / 2), round((width - SIDE) / 2)
    return frame[top : top + SIDE, left : left + SIDE]


def load_hyperiqa(path: Path | str) -> HyperNet:
    """The network of a file like koniq_pretrained.pkl; raises WeightsError when it is missing, unreadable or holds another network."""
    return load_frozen(HyperNet, path, _HINT)
