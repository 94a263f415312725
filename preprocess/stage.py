"""What a step of the data pipeline is: one clip in, clips kept or rejected out. Nothing in here runs anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Fact = int | float | str | bool | None  # what can be said of a clip in the manifest
Facts = Mapping[str, Fact]
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Clip:
    """One file on its way through the pipeline."""

    path: Path  # absolute
    source: str  # the raw file that it comes from, relative to the input folder, with /
    name: str  # of this file, relative to the folder that holds it (for a raw file: its source), with /
    facts: Facts = field(default_factory=dict)  # what the steps before have found out


@dataclass(frozen=True)
class Kept:
    """A clip that goes on: a file that the step has written, whole, into its own folder."""

    path: Path
    facts: Facts = field(default_factory=dict)  # what this step has found out


@dataclass(frozen=True)
class Rejected:
    """A clip that ends here, or a part of one."""

    reason: str  # a few words that many clips may share: "no face"
    why: str  # one sentence with the numbers of this one
    facts: Facts = field(default_factory=dict)


Outcome = Sequence[Kept | Rejected]  # of one clip; a step that cuts makes several


class Worker(Protocol):
    """A step at work in one process, with its models loaded. It keeps nothing from one clip to the next."""

    def __call__(self, clip: Clip, folder: Path) -> Outcome:
        """Work on one clip; what is kept is written below `folder`, whole or not at all, under names that begin like the clip's.

        Raises InputError where the clip cannot be used (it becomes a rejection), LatentSyncError where the step itself fails.
        """
        ...


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline; small enough to be sent to another process or machine.

    Attributes:
        name: what the command line and the manifest call it.
        folder: where it writes, beside the input folder.
        open: makes the worker, in the process that is going to work; is given the torch device as a string, such as "cpu" or "cuda:1".
        settings: everything that its result depends on besides the clip; a change makes the step, and those behind it, work again.
        device: "gpu" where it has a network that wants one.
        weights: names of files in the weights table that have to be there.
    """

    name: str
    folder: str
    open: Callable[[str], Worker]  # a function of a module or a partial of one, so that it can be pickled
    settings: Mapping[str, Fact] = field(default_factory=dict)
    device: Device = "cpu"
    weights: tuple[str, ...] = ()
