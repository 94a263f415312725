"""LPIPS of the lower half of the face."""

import warnings
from importlib.resources import as_file, files
from pathlib import Path

import lpips
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.models.syncnet import lower_half
from latentsync.weights import load_strict, read_checkpoint, read_state_dict

LINEAR_LAYERS = "weights/v0.1/vgg.pth"  # how much each channel counts; inside the package lpips
_UNUSED = "classifier."  # entries of the file of VGG-16 that LPIPS has no use for
_HINT = "use torchvision's vgg16-397923af.pth"


class LowerHalfLPIPS(nn.Module):
    """LPIPS of the lower halves, averaged over all frames; always float32. The network is frozen.

    Attributes:
        slice_size: frames whose activations are held at once, computed a second time on the way back; None for all, computed once.
    """

    def __init__(self, network: lpips.LPIPS, slice_size: int | None = None) -> None:
        super().__init__()
        self.network = network.float().eval().requires_grad_(False)
        self.slice_size = slice_size

    def forward(self, predicted: Tensor, real: Tensor) -> Tensor:
        """Pixels b f 3 h w in [-1, 1] of both -> a scalar; gradients flow into both."""
        halves = [lower_half(pixels).flatten(0, 1).float() for pixels in (predicted, real)]  # (b f) 3 h/2 w
        if self.slice_size is None:
            return self.network(*halves).mean()
        slices = zip(*(half.split(self.slice_size) for half in halves), strict=True)
        return torch.cat([checkpoint(self.network, *pair, use_reentrant=False, preserve_rng_state=False) for pair in slices]).mean()


def load_lpips(path: Path | str, slice_size: int | None = None) -> LowerHalfLPIPS:
    """LPIPS with torchvision's file of VGG-16 (`features.N.*`, `classifier.N.*`), on the CPU; nothing is downloaded.

    Raises WeightsError: the file is missing, unreadable, or holds another network.
    """
    network = empty_lpips()
    names = {f"features.{key.partition('.')[2]}": key for key in network.net.state_dict()}  # features.5.bias -> slice2.5.bias
    state_dict = read_state_dict(path)[0]
    backbone = {names.get(key, key): value for key, value in state_dict.items() if not key.startswith(_UNUSED)}
    load_strict(network.net, backbone, path, _HINT, assign=True)
    with as_file(files("lpips") / LINEAR_LAYERS) as file:
        linear = {key.removeprefix("lin"): value for key, value in read_checkpoint(file).items()}  # lin0.* -> 0.*
        load_strict(network.lins, linear, file, "install the package lpips again", assign=True)
    return LowerHalfLPIPS(network.float(), slice_size)  # a file may be in half precision


def empty_lpips() -> lpips.LPIPS:
    """The networks of LPIPS without memory for their weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the package calls torchvision by an old argument name
        return lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
