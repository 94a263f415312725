"""What the scheduler asks of those who work, and what it hears back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from preprocess.stage import Clip, Outcome

Trouble = Literal["failed", "crashed", "timed out", "lost", "not opened"]


@dataclass(frozen=True)
class Task:
    """One clip for one step."""

    number: int  # of the clip's row in the manifest
    step: int  # index into the steps of the run
    clip: Clip


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes:
        task: which.
        outcome: what the step made of the clip; None where there was trouble.
        seconds: spent by the step.
        trouble: "failed": the step said that it cannot work; "crashed": its process ended; "timed out": its process was ended;
            "lost": its machine went away; "not opened": the step could not even load its models.
        why: one sentence about the trouble.
    """

    task: Task
    outcome: Outcome | None
    seconds: float
    trouble: Trouble | None = None
    why: str = ""


class Executor(Protocol):
    """Runs tasks somewhere else; called from one thread.

    Workers may die and be replaced: for a while nothing may be free, and every task that was submitted still ends with a `Result`.
    """

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once. Raises LatentSyncError where no worker for it can be started any more."""
        ...

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task; there must be room for it."""
        ...

    def wait(self, seconds: float) -> Sequence[Result]:
        """What has ended; waits up to `seconds` for the first."""
        ...

    def close(self, at_once: bool) -> None:
        """Send everyone home; `at_once` interrupts what is at work, which is cleaned up and lost."""
        ...
