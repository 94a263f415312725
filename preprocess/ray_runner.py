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
from preprocess.runner import ONE_THREAD, Executor, LocalExecutor, Result, Task
from preprocess.step import Step

logger = logging.getLogger("preprocess.pipeline")
START_TRIES = 3  # times in a row that an actor may die before it has begun; no other is started then


class RayWorker:
    """An actor: one task after the other in one process of its machine."""

    def __init__(self, steps: Sequence[Step], device: str, timeout: float) -> None:
        devices = [] if device == "cpu" else [device]
        self._local = LocalExecutor(steps, workers=0 if devices else 1, devices=devices, timeout=timeout)

    def ready(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def work(self, task: Task) -> Result:
        self._local.submit(task)
        while not (results := self._local.wait(0.5)):
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


class RayExecutor(Executor):
    """Actors at an address (None: started here), replaced when lost; `workers` 0: all processors, `gpu_workers` 0: one for each GPU."""

    def __init__(self, steps: Sequence[Step], workers: int, gpu_workers: int, address: str | None, timeout: float) -> None:
        self._join(address)
        have = ray.cluster_resources()
        gpus = have.get("GPU", 0.0)
        gpu_workers = (gpu_workers or int(gpus)) if gpus else 0
        workers = workers or max(1, int(have.get("CPU", 1.0)) - gpu_workers)
        self._gpu_share = min(1.0, gpus / gpu_workers) if gpu_workers else 0.0
        super().__init__(steps, [_RaySlot(False) for _ in range(workers)], [_RaySlot(True) for _ in range(gpu_workers)], timeout)
        for slot in self._all:
            self._start(slot)

    def _join(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers
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
        slot.starting = slot.actor.ready.remote()

    def _free(self, step: int) -> list[_RaySlot]:
        self._check_started()  # LatentSyncError where all actors for it die before they begin
        return [slot for slot in super()._free(step) if slot.starting is None]

    def submit(self, task: Task) -> None:
        slot = self._free(task.step)[0]
        slot.task, slot.begun, slot.answer = task, time.monotonic(), slot.actor.work.remote(task)

    def wait(self, seconds: float) -> list[Result]:
        busy = {slot.answer: slot for slot in self._all if slot.task is not None}
        pending = [*busy, *(slot.starting for slot in self._all if slot.starting is not None)]
        if not pending:
            return []
        done, _ = ray.wait(pending, num_returns=1, timeout=seconds)
        if done:  # take along what has ended meanwhile
            done, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        return [self._result(busy[answer]) for answer in done if answer in busy]

    def _result(self, slot: _RaySlot) -> Result:
        task = slot.task
        assert task is not None
        slot.task = None
        try:
            return ray.get(slot.answer)
        except RayError as error:
            self._start(slot)
            why = f"the machine or process that worked on it went away ({first_line(error)})"
            return Result(task, (), time.monotonic() - slot.begun, "lost", why)

    def _check_started(self) -> None:
        starting = {slot.starting: slot for slot in self._all if slot.starting is not None}
        done = ray.wait(list(starting), num_returns=len(starting), timeout=0)[0] if starting else []
        for answer in done:
            slot = starting[answer]
            try:
                ray.get(answer)
                slot.starting, slot.early_deaths = None, 0
            except RayError as error:
                slot.early_deaths += 1
                if slot.early_deaths < START_TRIES:
                    logger.warning("A worker was lost before it began (%s); another one is started", first_line(error))
                    self._start(slot)
                else:
                    self._remove(slot, first_line(error))

    def _remove(self, slot: _RaySlot, why: str) -> None:
        """Go on without a slot whose actors die. Raises LatentSyncError where it was the last one of its kind."""
        kind = "gpu" if slot.gpu else "cpu"
        self._all.remove(slot)
        self._pools[kind].remove(slot)
        if not self._pools[kind]:
            sentence = f"No {kind.upper()} worker of the Ray cluster could begin ({why.rstrip('.')})"
            raise LatentSyncError(f"{sentence}: mend that, then run this again")
        logger.warning("A worker was lost %d times before it began (%s): going on with %d", START_TRIES, why, len(self._pools[kind]))

    def close(self, at_once: bool) -> None:
        for slot in self._all:
            ray.kill(slot.actor)  # its process ends with it, and cleans up
        if self._joined:
            ray.shutdown()
