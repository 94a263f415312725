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
_WAIT = 0.5  # seconds between two looks of an actor at its process


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
    arriving: Any = None  # its answer that it has found a place; None once it has
    task: Task | None = None
    answer: Any = None
    begun: float = 0.0
    died_early: int = 0  # actors in a row that died before they had begun


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
        self._seats = {"cpu": [_RaySlot(False) for _ in range(workers)]}
        self._seats["gpu"] = [_RaySlot(True) for _ in range(gpu_workers)] or self._seats["cpu"]
        self._all = self._seats["cpu"] + (self._seats["gpu"] if gpu_workers else [])
        for seat in self._all:
            self._hire(seat)

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

    def _hire(self, seat: _RaySlot) -> None:
        needs = {"num_cpus": 1, "num_gpus": self._gpu_share if seat.gpu else 0}
        kind = ray.remote(max_restarts=0, max_task_retries=0, **needs)(RayWorker)
        seat.actor = kind.remote(self._steps, "cuda:0" if seat.gpu else "cpu", self._timeout)  # an actor sees its own GPU alone
        seat.arriving, seat.task, seat.answer = seat.actor.ready.remote(), None, None

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once. Raises LatentSyncError where all actors for it die before they begin."""
        self._look_who_arrived()
        return sum(seat.task is None and seat.arriving is None for seat in self._seats[self._steps[step].stage.device])

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        return len(self._all)

    def submit(self, task: Task) -> None:
        """Begin a task; there must be room for it."""
        seats = self._seats[self._steps[task.step].stage.device]
        seat = next(seat for seat in seats if seat.task is None and seat.arriving is None)
        seat.task, seat.begun, seat.answer = task, time.monotonic(), seat.actor.work.remote(task)

    def wait(self, seconds: float) -> list[Result]:
        """What has ended; waits up to `seconds` for the first."""
        busy = {seat.answer: seat for seat in self._all if seat.task is not None}
        arriving = [seat.arriving for seat in self._all if seat.arriving is not None]
        if not busy and not arriving:
            return []
        done, _ = ray.wait([*busy, *arriving], num_returns=1, timeout=seconds)
        if done:  # take along what has ended meanwhile
            done, _ = ray.wait([*busy, *arriving], num_returns=len(busy) + len(arriving), timeout=0)
        return [self._hear(busy[answer]) for answer in done if answer in busy]

    def _hear(self, seat: _RaySlot) -> Result:
        assert seat.task is not None
        task = seat.task
        try:
            result = ray.get(seat.answer)
        except RayError as error:
            self._hire(seat)
            why = f"the machine or process that worked on it went away ({first_line(error)})"
            return Result(task, None, time.monotonic() - seat.begun, "lost", why)
        seat.task = seat.answer = None
        return result

    def _look_who_arrived(self) -> None:
        coming = {seat.arriving: seat for seat in self._all if seat.arriving is not None}
        if not coming:
            return
        done, _ = ray.wait(list(coming), num_returns=len(coming), timeout=0)
        for answer in done:
            seat = coming[answer]
            try:
                ray.get(answer)
                seat.arriving, seat.died_early = None, 0
            except RayError as error:
                seat.died_early += 1
                if seat.died_early < START_TRIES:
                    logger.warning("A worker was lost before it began (%s); another one is asked for", first_line(error))
                    self._hire(seat)
                else:
                    self._give_up(seat, first_line(error))

    def _give_up(self, seat: _RaySlot, why: str) -> None:
        """Go on without a place whose actors die. Raises LatentSyncError where it was the last one of its kind."""
        self._all.remove(seat)
        seats = self._seats["gpu" if seat.gpu else "cpu"]
        seats.remove(seat)
        if not seats:
            kind = "GPU" if seat.gpu else "CPU"
            raise LatentSyncError(f"No {kind} worker of the Ray cluster could begin ({why.rstrip('.')}): mend that, then run this again")
        logger.warning("A worker was lost %d times before it began (%s): going on with %d", START_TRIES, why, len(seats))

    def close(self, at_once: bool) -> None:
        """Send everyone home; `at_once` interrupts what is at work, which is cleaned up and lost."""
        for seat in self._all:
            ray.kill(seat.actor)  # its process ends with it, and cleans up
        if self._joined:
            ray.shutdown()
