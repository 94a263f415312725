"""Fifty jobs in a row, good, failing and cancelled ones mixed: `python tests/app_load.py` prints memory, outcomes and files left."""

import gc
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
from app_fixtures import OneFace, clips, tiny_models, tiny_pipeline

from latentsync.app.handlers import Handlers, Sessions
from latentsync.app.jobs import JobQueue, JobStage, QueuedJob
from latentsync.app.people import PeopleFinder
from latentsync.faces.detector import Face

JOBS = 50
EARLY = 5  # jobs after which memory is measured first
ALLOWED = 1.1  # memory at the end in units of that
PATIENCE = 120.0  # seconds that a job may take
EXPECTED = (JobStage.DONE, JobStage.FAILED, JobStage.CANCELLED)  # of the jobs, in turn


class OneFaceOrNone(OneFace):
    """Sees nobody in a picture that is smaller than the talker's."""

    def detect(self, frame: np.ndarray) -> list[Face]:
        return super().detect(frame) if frame.shape[1] > 128 else []


def run_job(handlers: Handlers, number: int) -> QueuedJob:
    """Do one job to its end, which should be that of EXPECTED."""
    wanted = EXPECTED[number % len(EXPECTED)]
    video = clips()["nobody" if wanted is JobStage.FAILED else "talk"]
    steps = 900 if wanted is JobStage.CANCELLED else 1
    job = handlers.submit(str(video), str(clips()["short"]), "", {"inference_steps": steps}, f"session {number}")
    end = time.monotonic() + PATIENCE
    while not job.stage.is_end and time.monotonic() < end:
        if wanted is JobStage.CANCELLED and job.stage is JobStage.GENERATE:
            handlers.job_queue.cancel(job)
        time.sleep(0.02)
    return job


def main() -> int:
    ends: Counter[str] = Counter()
    wrong, memory = 0, []
    tiny_pipeline().face_detector = OneFaceOrNone()
    with tempfile.TemporaryDirectory() as root, JobQueue(tiny_models()) as job_queue:
        handlers = Handlers(job_queue, Sessions(Path(root)), PeopleFinder())
        for number in range(JOBS):
            job = run_job(handlers, number)
            wrong += job.stage is not EXPECTED[number % len(EXPECTED)]
            ends[job.stage.value] += 1
            handlers.remove(job.id)
            gc.collect()
            memory.append(psutil.Process().memory_info().rss)
        left = [path for path in Path(root).rglob("*") if path.is_file()]
        unaccounted = len(job_queue.jobs()) + len(handlers.needed())
    growth = memory[-1] / memory[EARLY - 1]
    print(f"{JOBS} jobs: {dict(ends)}, {wrong} with another end than expected, {unaccounted} unaccounted, {len(left)} files left")
    print(f"memory after {EARLY}: {memory[EARLY - 1] / 1e6:.0f} MB, after {JOBS}: {memory[-1] / 1e6:.0f} MB ({100 * (growth - 1):+.1f} %)")
    return int(bool(wrong or left or unaccounted) or growth > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
