"""What validations and evaluations say of many cases: intervals of shares, correlation."""

import math

import torch
from torch import Tensor

CONFIDENCE_Z = 1.959964  # standard deviations that 95 % of a normal distribution lie within


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, Journal of the American Statistical Association 22)."""
    z = CONFIDENCE_Z
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return centre - reach if share > 0 else 0.0, centre + reach if share < 1 else 1.0  # where rounding would miss the ends


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's r along the last axis: [... n] -> [...]; 0 where either does not vary."""
    first, second = (values.double() - values.double().mean(-1, keepdim=True) for values in (first, second))
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(-1) / lengths.clamp(min=torch.finfo(torch.float32).tiny)
