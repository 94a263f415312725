"""Runs clips through steps on a Ray cluster."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from latentsync.cluster import Actors, ActorSlot, cluster_reason, join_cluster
from preprocess.runner import ONE_THREAD, Executor, LocalExecutor, Result, Task
from preprocess.step import Step


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


class RayExecutor(Executor):
    """Actors at an address (None: started here), replaced when lost; `workers` 0: all processors, `gpu_workers` 0: one for each GPU."""

    def __init__(self, steps: Sequence[Step], workers: int, gpu_workers: int, address: str | None, timeout: float) -> None:
        self._joined = join_cluster(address, ONE_THREAD)
        have = ray.cluster_resources()
        gpus = have.get("GPU", 0.0)
        gpu_workers = (gpu_workers or int(gpus)) if gpus else 0
        workers = workers or max(1, int(have.get("CPU", 1.0)) - gpu_workers)
        share = min(1.0, gpus / gpu_workers) if gpu_workers else 0.0
        slots = {
            "CPU": [ActorSlot("CPU", partial(self._start, "cpu", 0.0)) for _ in range(workers)],
            "GPU": [ActorSlot("GPU", partial(self._start, "cuda:0", share)) for _ in range(gpu_workers)],  # an actor sees its own GPU alone
        }
        super().__init__(steps, slots["CPU"], slots["GPU"], timeout)
        self._actors = Actors(self._all)

    def _start(self, device: str, gpu_share: float) -> Any:
        kind = ray.remote(max_restarts=0, max_task_retries=0, num_cpus=1, num_gpus=gpu_share)(RayWorker)
        return kind.remote(self._steps, device, self._timeout)

    def _free(self, step: int) -> list[ActorSlot]:
        free = self._actors.free()  # LatentSyncError where all actors for it die before they begin
        return [slot for slot in super()._free(step) if slot in free]

    def submit(self, task: Task) -> None:
        self._actors.submit(self._free(task.step)[0], task)

    def wait(self, seconds: float) -> list[Result]:
        return [self._result(*answer) for answer in self._actors.wait(seconds)]

    def _result(self, task: Task, value: Result | RayError, seconds: float) -> Result:
        if not isinstance(value, RayError):
            return value
        why = f"the machine or process that worked on it went away ({cluster_reason(value)})"
        return Result(task, (), seconds, "lost", why)

    def close(self, at_once: bool) -> None:
        self._actors.close()  # the process of an actor ends with it, and cleans up
        if self._joined:
            ray.shutdown()
