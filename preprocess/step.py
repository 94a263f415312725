"""What a step of the data pipeline is, and the steps of a run."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from latentsync.errors import InputError

Fact = int | float | str | bool | None  # what can be said of a clip in the manifest
Facts = Mapping[str, Fact]
Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class ClipFile:
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

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Work on one clip; what is kept is written below `folder`, whole or not at all, under names that begin like the clip's.

        Raises InputError where the clip cannot be used (it becomes a rejection), LatentSyncError where the step itself fails.
        """
        ...


@dataclass(frozen=True)
class StepDefinition:
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


RAW = "raw"  # what the manifest calls the step before the first: a file was found


@dataclass(frozen=True)
class Step:
    """A stage at its place in a run; small enough to be sent to another process or machine."""

    stage: StepDefinition
    folder: Path  # absolute; where the stage writes
    digest: str  # of its settings and those of all steps before it

    @property
    def name(self) -> str:
        """What the manifest calls it."""
        return self.stage.name


def plan_steps(stages: Sequence[StepDefinition], output: Path) -> list[Step]:
    """Put stages into their folders below `output` and compute their digests. Raises InputError where there are none."""
    if not stages:
        raise InputError("No step is left to run: take something off --skip")
    steps: list[Step] = []
    digest = ""
    for stage in stages:
        digest = _digest(digest, stage.name, stage.folder, stage.settings)
        steps.append(Step(stage, output / stage.folder, digest))
    names = [step.name for step in steps]
    assert len(set(names)) == len(names) and RAW not in names, "two steps of one name"
    return steps


def _digest(before: str, name: str, folder: str, settings: Mapping[str, Fact]) -> str:
    text = json.dumps([before, name, folder, sorted(settings.items())])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
