"""AdamW, plain or with its moments in 8 bits."""

from collections.abc import Iterable

import torch
from torch import nn

from latentsync.errors import InputError
from latentsync.training_config import OptimizerConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration (AdamW, arXiv 1711.05101, betas 0.9 and 0.999).

    Raises InputError for 8 bits where the package bitsandbytes, or a CUDA device, is missing.
    """
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit  # optional: large, and of use with CUDA alone
    except ImportError:
        raise InputError("optimizer.name adamw_8bit needs the package bitsandbytes: pip install bitsandbytes, or set adamw.") from None
    if not torch.cuda.is_available():
        raise InputError("optimizer.name adamw_8bit needs a CUDA device: set optimizer.name=adamw.")
    return AdamW8bit(parameters, **settings)
