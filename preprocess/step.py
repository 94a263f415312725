"""What a step of the data pipeline is, its input and its outcome, and the steps of one run."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from latentsync.errors import InputError

Fact = int | float | str | bool | None  # what can be said of a clip in the manifest
Facts = Mapping[str, Fact]
Options = Mapping[str, Any]  # name of a `StepOption` -> its value
Settings = Mapping[str, Any]  # what the result of a step depends on besides the clip: facts, by name
RAW = "raw"  # what the manifest calls the step before the first: a file was found


@dataclass(frozen=True)
class ClipFile:
    """One file on its way through the pipeline."""

    path: Path  # absolute
    source: str  # the raw file that it comes from, relative to the input folder, with /
    name: str  # of this file, relative to the folder that holds it (for a raw file: its source), with /
    facts: Facts = field(default_factory=dict)  # found by the steps before


@dataclass(frozen=True)
class Kept:
    """A clip that goes on: a file that the step has written, whole, into its own folder."""

    path: Path
    facts: Facts = field(default_factory=dict)  # found by this step


@dataclass(frozen=True)
class Rejected:
    """A clip that ends here, or a part of one."""

    reason: str  # a few words that many clips may share: "no face"
    why: str  # one sentence with the numbers of this one
    facts: Facts = field(default_factory=dict)


Outcome = Sequence[Kept | Rejected]  # of one clip; a step that cuts makes several


class ClipProcessor(Protocol):
    """A step that is ready to work in one process, with its models loaded. It keeps nothing from one clip to the next."""

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Work on one clip; what is kept is written below `folder`, whole or not at all, under names that begin like the clip's.

        Raises InputError where the clip cannot be used (it becomes a rejection), LatentSyncError where the step itself fails.
        """


@dataclass(frozen=True)
class StepOption:
    """An option of the command line; steps that share one list the same object."""

    name: str  # without --
    type: Callable[[str], Any]
    default: Any
    help: str


@dataclass(frozen=True)
class StepDefinition:
    """What a step registers; its functions are functions of a module or partials of one, so that it can be sent to another process."""

    name: str  # of the command line and the manifest
    # Builds its `ClipProcessor` in the process that is going to work, from the settings, the folder of weight files and a torch device such
    # as "cpu" or "cuda:1". Heavy imports belong inside it: every process imports the module.
    open: Callable[[Settings, Path, str], ClipProcessor]
    folder: str = ""  # where it writes, below the output; values of options may stand in it: "sync_{threshold:g}". "": it writes nothing
    options: tuple[StepOption, ...] = ()  # that it reads
    # From all options and the folder of weight files, everything that its result depends on besides the clip; a change makes the step, and
    # those behind it, work again. None: its own options. Raises InputError for options that cannot be honoured.
    settings: Callable[[Options, Path], Settings] | None = None
    columns: tuple[str, ...] = ()  # facts, numbers all, that get a column in the manifest and a histogram in the report
    device: Literal["cpu", "gpu"] = "cpu"  # "gpu" where it has a network that wants one
    weights: tuple[str, ...] = ()  # names of files in the weights table that have to be there
    is_filter: bool = False  # whether the steps behind it can do without it, so that it may be skipped


@dataclass(frozen=True)
class Step:
    """A step at its place in a run; small enough to be sent to another process or machine."""

    definition: StepDefinition
    settings: Settings
    checkpoints: Path  # folder of weight files
    output: Path  # folder of the run, absolute
    folder_name: str  # of its folder in there; "" where it writes nothing
    digest: str  # of its settings and those of all steps before it

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def folder(self) -> Path:
        return self.output / self.folder_name

    @property
    def device(self) -> Literal["cpu", "gpu"]:
        return self.definition.device

    def open(self, device: str) -> ClipProcessor:
        """Load its models onto a torch device. Raises LatentSyncError where they cannot be loaded."""
        return self.definition.open(self.settings, self.checkpoints, device if self.device == "gpu" else "cpu")


def options_of(definitions: Iterable[StepDefinition]) -> list[StepOption]:
    """The options of some steps, each once."""
    return list({option.name: option for definition in definitions for option in definition.options}.values())


def plan_steps(definitions: Sequence[StepDefinition], output: Path, options: Options, checkpoints: Path) -> list[Step]:
    """The steps of a run below `output`; missing options have their defaults. InputError: no step, or options that cannot be honoured."""
    if not definitions:
        raise InputError("No step is left to run: take something off --skip")
    values = {option.name: option.default for option in options_of(definitions)} | dict(options)
    steps: list[Step] = []
    digest = ""
    for definition in definitions:
        own = {option.name: values[option.name] for option in definition.options}
        settings = own if definition.settings is None else definition.settings(values, checkpoints)
        folder = definition.folder.format(**values)
        text = json.dumps([digest, definition.name, folder, sorted(settings.items())])
        digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        steps.append(Step(definition, settings, checkpoints, output, folder, digest))
    names = [step.name for step in steps]
    assert len(set(names)) == len(names) and RAW not in names, "two steps of one name"
    return steps
