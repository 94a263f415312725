"""Validation between two steps: on all processes, told when it fails, never the end of a training."""

import logging
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from latentsync.errors import first_line
from latentsync.training.parts import Tally, Validator
from latentsync.training.statistics import wilson

logger = logging.getLogger(__name__)


def run_validators(validators: Sequence[Validator], model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
    """What all validators measured over all processes; called on every process. Shares come with the ends of their 95 % interval as
    "name:low" and "name:high". The random state of the training is left as it was."""
    training = model.training
    model.eval()
    values: dict[str, float] = {}
    devices = [accelerator.device.index or 0] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), accelerator.autocast():
            for validator in validators:
                values |= combined(gather_object([_measured(validator, model, step)]))
    finally:
        model.train(training)
    return values


def _measured(validator: Validator, model: nn.Module, step: int) -> dict[str, Tally] | None:
    """This process's share; None where it failed."""
    try:
        return validator(model, step)
    except Exception as error:  # whatever a validation meets is reported and never ends the training
        logger.error(
            "The validation '%s' of step %d failed and is left out; the training goes on (%s)", validator.name, step, first_line(error)
        )
        logger.debug("Where it happened:", exc_info=error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def combined(shares: Sequence[dict[str, Tally] | None]) -> dict[str, float]:
    """The means over the shares of all processes; nothing where one of them is missing."""
    if any(share is None for share in shares):
        return {}
    values: dict[str, float] = {}
    for name in dict.fromkeys(name for share in shares for name in share):
        tallies = [share[name] for share in shares if name in share]
        total, count = sum(tally.total for tally in tallies), sum(tally.count for tally in tallies)
        if not count:
            continue
        values[name] = total / count
        if tallies[0].is_share:
            values[f"{name}:low"], values[f"{name}:high"] = wilson(total / count, count)
    return values
