"""What the training loop is handed: a network, how a batch becomes losses, what validates it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from latentsync.data.batches import Batch
from latentsync.training.history import History

Losses = dict[str, Tensor]  # loss -> its mean over the batch, a scalar
Publish = Callable[[Mapping[str, Tensor], int, History], dict[str, Any]]  # weights, step, history -> what the published file holds


class Step(Protocol):
    """One batch to its losses. Everything random in it comes from the batch's positions, or from torch's global generator."""

    def __call__(self, model: nn.Module, batch: Any) -> Losses: ...


class Tally(NamedTuple):
    """A sum over this process's share of a validation, and over how many it was taken."""

    total: float
    count: float
    is_share: bool = False  # the sum counts those of which something is true: it gets a confidence interval


class Validator(Protocol):
    """Looks at the network between two steps. Called on every process, with the network in evaluation mode and without gradients."""

    name: str

    def __call__(self, model: nn.Module, step: int) -> dict[str, Tally]: ...


class Watch(Protocol):
    """Is told the losses of every step; returns a sentence when there is something the user should know."""

    def __call__(self, step: int, losses: Mapping[str, float]) -> str | None: ...


@dataclass(frozen=True)
class Parts:
    """What is trained, and on what."""

    model: nn.Module  # parameters that shall not be trained have requires_grad off
    step: Step
    dataset: "Dataset[Batch]"  # of `Turn`s
    num_clips: int
    publish: Publish
    clip_name: Callable[[int], str]  # index of a clip -> what to call it in a message
    validators: Sequence[Validator] = ()
    watches: Sequence[Watch] = field(default_factory=tuple)
    prepare: Callable[[], None] = lambda: None  # what takes long and is needed before the first step; called on every process
    publishes_curves: bool = False  # the published file holds loss curves, and so is written anew after a validation
