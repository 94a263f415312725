"""Make the executor that the command line names."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentsync.errors import InputError
from preprocess.executors.base import Executor
from preprocess.executors.local import LocalExecutor
from preprocess.plan import Step

KINDS = ("local", "ray")
_GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))  # of NVIDIA, of Windows' Linux, of AMD


@dataclass(frozen=True)
class Crew:
    """Who works.

    Attributes:
        kind: of `KINDS`.
        workers: for steps that need the CPU; 0: one for each processor.
        gpu_workers: for steps with a network; 0: one for each GPU.
        timeout: seconds that a step may spend on one clip.
        ray_address: of a cluster, such as "auto"; None starts Ray on this machine.
    """

    kind: str = "local"
    workers: int = 0
    gpu_workers: int = 0
    timeout: float = 1800.0
    ray_address: str | None = None


def executor_maker(crew: Crew) -> Callable[[Sequence[Step]], Executor]:
    """What makes the executor for the steps of a run. Raises InputError where Ray is asked for and missing."""
    if crew.kind == "local":
        return lambda steps: LocalExecutor(steps, crew.workers or processors(), gpu_devices(crew.gpu_workers), crew.timeout)
    try:
        from preprocess.executors.ray import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError("--executor ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from None
    return lambda steps: RayExecutor(steps, crew.workers, crew.gpu_workers, crew.ray_address, crew.timeout)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_devices(workers: int) -> list[str]:
    """A torch device for each process of steps with a network, over the visible GPUs in turn; empty where there is none."""
    if not any(place.exists() for place in _GPU_DRIVERS):  # saves the import of torch
        return []
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{k % count}" for k in range(workers or count)] if count else []
