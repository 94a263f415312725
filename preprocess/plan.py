"""The steps of one run in their order, each with its folder and with a digest of everything that its results depend on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentsync.errors import InputError
from preprocess.stage import Fact, Stage

RAW = "raw"  # what the manifest calls the step before the first: a file was found


@dataclass(frozen=True)
class Step:
    """A stage at its place in a run; small enough to be sent to another process or machine."""

    stage: Stage
    folder: Path  # absolute; where the stage writes
    digest: str  # of its settings and those of all steps before it

    @property
    def name(self) -> str:
        """What the manifest calls it."""
        return self.stage.name


def plan_steps(stages: Sequence[Stage], output: Path) -> list[Step]:
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
