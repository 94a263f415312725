"""How badly two embeddings of a judge agree with a label: binary cross-entropy of their cosine (arXiv 2412.09262)."""

import torch
import torch.nn.functional as F
from torch import Tensor

IN_SYNC = 0.5  # cosines above it count as "in sync"


def cosine_loss(seen: Tensor, heard: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of the raw cosine of unit vectors b d, one value for each pair: b.

    label (b or b 1) is 1 for a mouth that belongs to the sound. Cosines lie in [0, 1], since SyncNet's outputs are not negative; what
    rounding adds beyond is cut off. Computed in float32 whatever the vectors are.
    """
    cosine = F.cosine_similarity(seen.float(), heard.float(), dim=1).clamp(0.0, 1.0)
    with torch.autocast(cosine.device.type, enabled=False):  # half precision has no safe logarithm of a value near 0
        return F.binary_cross_entropy(cosine, label.float().reshape(-1), reduction="none")


def accuracy(seen: Tensor, heard: Tensor, label: Tensor) -> Tensor:
    """Share of pairs (0 .. 1, a scalar) whose cosine lies on the side of IN_SYNC that its label says."""
    cosine = F.cosine_similarity(seen.float(), heard.float(), dim=1)
    return ((cosine > IN_SYNC) == (label.reshape(-1) > IN_SYNC)).float().mean()
