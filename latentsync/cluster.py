"""Actors of a Ray cluster with one task at a time each; those that are lost are replaced. Needs Ray (requirements-ray.txt)."""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from latentsync.errors import LatentSyncError, first_line, reason_of

logger = logging.getLogger(__name__)
START_TRIES = 3  # times in a row that an actor may die before it has begun; no other is started then


def join_cluster(address: str | None, variables: Mapping[str, str] | None = None) -> bool:
    """Connect to a cluster (None: one is started here), whose workers find this project and these environment variables.

    Returns whether this call connected: who did that calls `ray.shutdown` at the end. Raises LatentSyncError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers
    if ray.is_initialized():
        return False
    environment = {**(variables or {}), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    how: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(
            address=address or "local", runtime_env={"env_vars": environment}, log_to_driver=False, logging_level=logging.WARNING, **how
        )
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster {address}" if address else "Ray on this machine"
        raise LatentSyncError(f"{where} cannot be reached ({first_line(error)}): start it with `ray start --head`") from None
    return True


def cluster_reason(error: RayError) -> str:
    """Why an actor gave no answer, on one line."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return reason_of(error.cause)
    return first_line(error)


@dataclass(eq=False)
class ActorSlot:
    """Room for one actor."""

    kind: str  # what messages call it: "CPU", "GPU"
    start: Callable[[], Any]  # a new actor, with the methods `ready()` and `work(task)`
    actor: Any = None
    starting: Any = None  # its answer that it has started; None once it has
    task: Any = None
    answer: Any = None
    begun: float = 0.0
    early_deaths: int = 0  # actors in a row that died before they had begun


class Answer(NamedTuple):
    """What became of a task: the value of `work`, or the error by which its actor was lost."""

    task: Any
    value: Any
    seconds: float


class Actors:
    """An actor for each slot, replaced when it is lost."""

    def __init__(self, slots: list[ActorSlot]) -> None:
        self.slots = slots
        for slot in slots:
            self._start(slot)

    def _start(self, slot: ActorSlot) -> None:
        slot.actor = slot.start()
        slot.starting = slot.actor.ready.remote()

    def free(self) -> list[ActorSlot]:
        """Slots whose actors wait for a task. Raises LatentSyncError where all of one kind die before they begin."""
        self._check_started()
        return [slot for slot in self.slots if slot.task is None and slot.starting is None]

    def submit(self, slot: ActorSlot, task: Any) -> None:
        """Begin a task on a free slot."""
        slot.task, slot.begun, slot.answer = task, time.monotonic(), slot.actor.work.remote(task)

    def wait(self, seconds: float) -> list[Answer]:
        """Tasks that have ended; waits up to `seconds` for the first, or for an actor to be ready."""
        busy = {slot.answer: slot for slot in self.slots if slot.task is not None}
        pending = [*busy, *(slot.starting for slot in self.slots if slot.starting is not None)]
        if not pending:
            return []
        done, _ = ray.wait(pending, num_returns=1, timeout=seconds)
        if done:  # take along what has ended meanwhile
            done, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        return [self._answer(busy[answer]) for answer in done if answer in busy]

    def _answer(self, slot: ActorSlot) -> Answer:
        task, slot.task = slot.task, None
        try:
            value = ray.get(slot.answer)
        except RayError as error:
            value = error
            self._start(slot)
        return Answer(task, value, time.monotonic() - slot.begun)

    def _check_started(self) -> None:
        starting = {slot.starting: slot for slot in self.slots if slot.starting is not None}
        done = ray.wait(list(starting), num_returns=len(starting), timeout=0)[0] if starting else []
        for answer in done:
            slot = starting[answer]
            try:
                ray.get(answer)
                slot.starting, slot.early_deaths = None, 0
            except RayError as error:
                slot.early_deaths += 1
                if slot.early_deaths < START_TRIES:
                    logger.warning("A worker was lost before it began (%s); another one is started", cluster_reason(error))
                    self._start(slot)
                else:
                    self._remove(slot, cluster_reason(error))

    def _remove(self, slot: ActorSlot, why: str) -> None:
        """Go on without a slot whose actors die. Raises LatentSyncError where it was the last one of its kind."""
        self.slots.remove(slot)
        rest = [other for other in self.slots if other.kind == slot.kind]
        if not rest:
            sentence = f"No {slot.kind} worker of the Ray cluster could begin ({why.rstrip('.')})"
            raise LatentSyncError(f"{sentence}: mend that, then run this again")
        logger.warning("A worker was lost %d times before it began (%s): going on with %d", START_TRIES, why, len(rest))

    def close(self) -> None:
        """End all actors at once, and what they do."""
        for slot in self.slots:
            ray.kill(slot.actor)
