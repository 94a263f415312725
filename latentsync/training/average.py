"""The moving average of the weights that is validated and published (optional)."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from diffusers.training_utils import EMAModel
from torch import nn


class MovingAverage:
    """Exponential moving average of parameters; does nothing at decay 0. Saved and restored with the rest of a training."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self._ema = EMAModel(self.parameters, decay=decay) if decay else None

    def __bool__(self) -> bool:
        return self._ema is not None

    def update(self) -> None:
        """Take a step of the optimizer into account."""
        if self._ema is not None:
            self._ema.step(self.parameters)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While this context lasts, the parameters hold the average."""
        if self._ema is None:
            yield
            return
        self._ema.store(self.parameters)
        self._ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self._ema.restore(self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {} if self._ema is None else self._ema.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint; where that has no average, it begins anew with the weights, which are loaded before."""
        if self._ema is None:
            return
        if state:
            self._ema.load_state_dict(state)
            self._ema.to(self.parameters[0].device)
            self._ema.decay = self.decay  # as configured, whatever it was before
        else:
            self._ema = EMAModel(self.parameters, decay=self.decay)
