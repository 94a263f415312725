"""Jobs of the inference command on a Ray cluster: models are built once a worker, a lost worker's job is tried elsewhere."""

import logging
import os
import platform
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from latentsync.cluster import Actors, ActorSlot, cluster_reason, join_cluster
from latentsync.errors import LatentSyncError
from latentsync.media.segments import work_folder
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.timeline import Part
from scripts.jobs import FAILED, MADE, Job, Outcome, Outcomes, PartJob, attempt, is_finished, run_job, shared_faces

logger = logging.getLogger("latentsync.jobs")

TRIES = 3  # times that a job is begun in all, where the worker that has it is lost
NO_WORKER_SECONDS = 900.0  # that jobs wait without any worker before the run is given up
STOP_SECONDS = 30.0  # in which workers that are interrupted may remove what they have begun


class Stopped(Exception):
    """The run was interrupted."""


class JobWorker:
    """An actor: one set of models, one job after the other; `stop` interrupts it from another thread.

    Args:
        build: makes the pipeline.
        jobs: all jobs of the run, by which it is told whether some share a video.
        folder: where the command was given, from which relative paths count.
    """

    def __init__(self, build: Callable[[], LipsyncPipeline], jobs: Sequence[Job], write_report: bool, folder: Path) -> None:
        self._build, self._jobs, self._write_report, self._folder = build, jobs, write_report, folder
        self._working, self._stopped, self._stack = threading.Lock(), threading.Event(), ExitStack()
        self._pipeline: LipsyncPipeline | None = None

    def ready(self) -> str:
        """Build the models; the name of the machine."""
        os.chdir(self._folder)
        self._pipeline = self._build()
        self._stack.enter_context(shared_faces(self._pipeline, self._jobs))
        return platform.node()

    def work(self, task: tuple[Job, int]) -> Outcome | None:
        """Do a job, which is begun for the n-th time; None where `stop` interrupted it."""
        pipeline, (job, tries) = self._pipeline, task
        assert pipeline is not None
        with self._working:
            outcome = attempt(lambda: run_job(pipeline, job, self._write_report, self._check_stopped), job)
        return None if self._stopped.is_set() else replace(outcome, tries=tries)

    def stop(self) -> None:
        """Interrupt the job in work and wait until nothing of it is left."""
        self._stopped.set()
        with self._working:
            self._stack.close()

    def _check_stopped(self, *_: object) -> None:
        """Called after each frame."""
        if self._stopped.is_set():
            raise Stopped


class WorkerSizes(NamedTuple):
    """How many workers a cluster has room for, and what each of them gets."""

    count: int
    cpus: int
    gpus: float


def worker_sizes(gpus_per_worker: float) -> WorkerSizes:
    """As many workers as GPUs allow; where there are none, one for each machine, of which the smallest sets the size."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    on_gpus = [(node["CPU"], int(node.get("GPU", 0) / gpus_per_worker)) for node in nodes if gpus_per_worker]
    on_gpus = [(cpus, count) for cpus, count in on_gpus if count]
    if on_gpus:
        cpus = max(1, min(int(cpus / count) for cpus, count in on_gpus))
        return WorkerSizes(sum(min(count, int(own / cpus)) for own, count in on_gpus), cpus, gpus_per_worker)
    if not nodes:
        raise LatentSyncError("The Ray cluster has no machine with a free processor: start one with `ray start --address`")
    cpus = min(int(node["CPU"]) for node in nodes)
    return WorkerSizes(sum(int(node["CPU"] / cpus) for node in nodes), cpus, 0)


def work_on_ray(
    jobs: Sequence[Job], build: Callable[[], LipsyncPipeline], write_report: bool, address: str | None, gpus_per_worker: float
) -> Outcomes:
    """Do jobs on the workers of a cluster (None: of this machine), which see the same files under the same paths.

    A job that is alone is spread: each worker makes some of its segments into its work folder, then one makes the rest and joins them.
    Raises LatentSyncError where the cluster cannot be reached, no worker can begin, or all are gone for long.
    """
    joined = join_cluster(address)
    try:
        sizes = worker_sizes(gpus_per_worker)
        parts = [PartJob(jobs[0], Part(index, sizes.count)) for index in range(sizes.count)] if len(jobs) == 1 and sizes.count > 1 else []
        kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2, num_cpus=sizes.cpus, num_gpus=sizes.gpus)(JobWorker)
        start = partial(kind.remote, build, [*parts, *jobs], write_report, Path.cwd())
        count = min(sizes.count, max(len(parts), len(jobs)))
        what = f"One job, its segments in {len(parts)} parts," if parts else f"{len(jobs)} jobs"
        logger.info("%s on %d workers of %d processors and %g GPUs each", what, count, sizes.cpus, sizes.gpus)
        actors = Actors([ActorSlot("GPU" if sizes.gpus else "CPU", start) for _ in range(count)])
        try:
            for _ in give_out(parts, actors):  # of one that fails, the job itself makes the segments, or fails alike
                pass
            yield from give_out(jobs, actors)
        finally:
            stop_workers(actors)
            for job in jobs if parts and not jobs[0].options.resume else ():
                shutil.rmtree(work_folder(job.video_out_path), ignore_errors=True)
    finally:
        if joined:
            ray.shutdown()


def give_out(jobs: Sequence[Job], actors: Actors) -> Outcomes:
    """Give each free worker a job until all have ended; the job of a lost one goes back in line, at most `TRIES` times in all."""
    waiting, running = deque((job, 1) for job in jobs), 0
    idle_since = time.monotonic()
    while waiting or running:
        for slot in actors.free():
            if waiting:
                actors.submit(slot, waiting.popleft())
                running += 1
        if running:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > NO_WORKER_SECONDS:
            raise LatentSyncError(
                f"Jobs wait, and for {NO_WORKER_SECONDS:.0f} s there was no worker: make room for one, then run this again: it goes on "
                "from there"
            )
        for (job, tries), value, _ in actors.wait(0.5):
            running -= 1
            if not isinstance(value, RayError):
                tell_outcome(value)
                yield value
            elif is_finished(job):  # it was lost with its answer alone
                yield Outcome(job, MADE, machine="", tries=tries)
            elif tries < TRIES:
                logger.warning("%s: its worker was lost (%s); it is tried again", job.video_out_path, cluster_reason(value))
                waiting.append((job, tries + 1))
            else:
                reason = f"the machine or process that worked on it went away {tries} times ({cluster_reason(value)})"
                logger.error("%s was not made: %s", job.video_out_path, reason)
                yield Outcome(job, FAILED, reason, machine="", tries=tries)


def tell_outcome(outcome: Outcome) -> None:
    """Tell what a worker has told where its messages are not seen."""
    if outcome.status == FAILED:
        logger.error("%s was not made: %s", outcome.job.video_out_path, outcome.reason)
    for warning in outcome.result.warnings if outcome.result else ():
        logger.warning("%s: %s", outcome.job.video_out_path, warning)


def stop_workers(actors: Actors) -> None:
    """Let workers leave nothing behind, then end them."""
    begun = [slot for slot in actors.slots if slot.starting is None or ray.wait([slot.starting], timeout=0)[0]]
    stops: list[Any] = [slot.actor.stop.remote() for slot in begun]
    try:
        if stops:
            ray.wait(stops, num_returns=len(stops), timeout=STOP_SECONDS)
    finally:
        actors.close()
