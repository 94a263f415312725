"""Runs clips through steps on a Ray cluster."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from latentsync.errors import LatentSyncError, first_line
from preprocess.runner import ONE_THREAD, LocalExecutor, Result, Task
from preprocess.step import Step

logger = logging.getLogger("preprocess.pipeline")
START_TRIES = 3  # times in a row that an actor may die before it has begun; another one is not asked for then
_TELEMETRY = "RAY_USAGE_STATS_ENABLED"  # nothing is reported to Ray's makers
_WAIT = 0.5  # seconds between two questions of an actor to its process


class RayWorker:
    """What an actor does: one task after the other in one process of its machine."""

    def __init__(self, steps: Sequence[Step], device: str, timeout: float) -> None:
        devices = [] if device == "cpu" else [device]
        self._local = LocalExecutor(steps, workers=0 if devices else 1, devices=devices, timeout=timeout)

    def ready(self) -> str:
        """Where this is: the node's identifier."""
        return ray.get_runtime_context().get_node_id()

    def work(self, task: Task) -> Result:
        """Do a task."""
        self._local.submit(task)
        while not (results := self._local.wait(_WAIT)):
            pass
        return results[0]


@dataclass(eq=False)
class _RaySlot:
    """Room for one actor."""

    gpu: bool
    actor: Any = None
    starting: Any = None  # its answer that it has started; None once it has
    task: Task | None = None
    answer: Any = None
    begun: float = 0.0
    early_deaths: int = 0  # actors in a row that died before they had begun


class RayExecutor:
    """Actors of a Ray cluster; one whose machine goes away is replaced, and its clip is tried again.

    Args:
        steps: of the run.
        workers: actors for steps that need the CPU, a processor each; 0: as many as the cluster has processors for.
        gpu_workers: actors for steps with a network, sharing the cluster's GPUs; 0: one for each GPU. Without GPUs the other actors do all.
        address: of the cluster, such as "auto"; None starts one on this machine.
        timeout: seconds that a step may spend on one clip.
    """

    def __init__(self, steps: Sequence[Step], workers: int, gpu_workers: int, address: str | None, timeout: float) -> None:
        self._steps, self._timeout = list(steps), timeout
        self._join(address)
        have = ray.cluster_resources()
        gpus = have.get("GPU", 0.0)
        gpu_workers = (gpu_workers or int(gpus)) if gpus else 0
        workers = workers or max(1, int(have.get("CPU", 1.0)) - gpu_workers)
        self._gpu_share = min(1.0, gpus / gpu_workers) if gpu_workers else 0.0
        self._pools = {"cpu": [_RaySlot(False) for _ in range(workers)]}
        self._pools["gpu"] = [_RaySlot(True) for _ in range(gpu_workers)] or self._pools["cpu"]
        self._all = self._pools["cpu"] + (self._pools["gpu"] if gpu_workers else [])
        for slot in self._all:
            self._start(slot)

    def _join(self, address: str | None) -> None:
        os.environ.setdefault(_TELEMETRY, "0")
        self._joined = not ray.is_initialized()
        if not self._joined:
            return
        variables = {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        how: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level=logging.WARNING, **how)
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster {address}" if address else "Ray on this machine"
            raise LatentSyncError(f"{where} cannot be reached ({first_line(error)}): start it with `ray start --head`") from None

    def _start(self, slot: _RaySlot) -> None:
        needs = {"num_cpus": 1, "num_gpus": self._gpu_share if slot.gpu else 0}
        kind = ray.remote(max_restarts=0, max_task_retries=0, **needs)(RayWorker)
        slot.actor = kind.remote(self._steps, "cuda:0" if slot.gpu else "cpu", self._timeout)  # an actor sees its own GPU alone
        slot.starting, slot.task, slot.answer = slot.actor.ready.remote(), None, None

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once. Raises LatentSyncError where all actors for it die before they begin."""
        self._check_started()
        return sum(slot.task is None and slot.starting is None for slot in self._pools[self._steps[step].device])

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        return len(self._all)

    def submit(self, task: Task) -> None:
        """Begin a task; a worker must be free."""
        pool = self._pools[self._steps[task.step].device]
        slot = next(slot for slot in pool if slot.task is None and slot.starting is None)
        slot.task, slot.begun, slot.answer = task, time.monotonic(), slot.actor.work.remote(task)

    def wait(self, seconds: float) -> list[Result]:
        """What has ended; waits up to `seconds` for the first."""
        busy = {slot.answer: slot for slot in self._all if slot.task is not None}
        starting = [slot.starting for slot in self._all if slot.starting is not None]
        if not busy and not starting:
            return []
        done, _ = ray.wait([*busy, *starting], num_returns=1, timeout=seconds)
        if done:  # take along what has ended meanwhile
            done, _ = ray.wait([*busy, *starting], num_returns=len(busy) + len(starting), timeout=0)
        return [self._result(busy[answer]) for answer in done if answer in busy]

    def _result(self, slot: _RaySlot) -> Result:
        assert slot.task is not None
        task = slot.task
        try:
            result = ray.get(slot.answer)
        except RayError as error:
            self._start(slot)
            why = f"the machine or process that worked on it went away ({first_line(error)})"
            return Result(task, None, time.monotonic() - slot.begun, "lost", why)
        slot.task = slot.answer = None
        return result

    def _check_started(self) -> None:
        starting = {slot.starting: slot for slot in self._all if slot.starting is not None}
        if not starting:
            return
        done, _ = ray.wait(list(starting), num_returns=len(starting), timeout=0)
        for answer in done:
            slot = starting[answer]
            try:
                ray.get(answer)
                slot.starting, slot.early_deaths = None, 0
            except RayError as error:
                slot.early_deaths += 1
                if slot.early_deaths < START_TRIES:
                    logger.warning("A worker was lost before it began (%s); another one is asked for", first_line(error))
                    self._start(slot)
                else:
                    self._remove(slot, first_line(error))

    def _remove(self, slot: _RaySlot, why: str) -> None:
        """Go on without a slot whose actors die. Raises LatentSyncError where it was the last one of its kind."""
        self._all.remove(slot)
        pool = self._pools["gpu" if slot.gpu else "cpu"]
        pool.remove(slot)
        if not pool:
            kind = "GPU" if slot.gpu else "CPU"
            raise LatentSyncError(f"No {kind} worker of the Ray cluster could begin ({why.rstrip('.')}): mend that, then run this again")
        logger.warning("A worker was lost %d times before it began (%s): going on with %d", START_TRIES, why, len(pool))

    def close(self, at_once: bool) -> None:
        """End all workers; `at_once` interrupts what is at work, which is cleaned up and lost."""
        for slot in self._all:
            ray.kill(slot.actor)  # its process ends with it, and cleans up
        if self._joined:
            ray.shutdown()
