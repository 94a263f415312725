"""How fast people are built and rendered: frames a second of one process and of one process for each processor."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from preprocess.talking_heads.head import Pose
from preprocess.talking_heads.performance import poses
from preprocess.talking_heads.scene.motion import motion
from preprocess.talking_heads.speech.viseme_table import CHANNELS
from preprocess.talking_heads.studio import Studio
from preprocess.talking_heads.traits import stream

SIZES = (128, 256, 512)  # pixels
_WARM = 2  # frames before the clock starts: compiled code is loaded, memory is there


@dataclass(frozen=True)
class Speed:
    """Rendering of pictures of one size."""

    size: int  # pixels a side
    build: float  # s to build a person with room and light
    one: float  # frames a second of one process
    all: float  # frames a second of all processors together
    processes: int


@dataclass(frozen=True)
class Job:
    """Frames that one process renders against the clock."""

    size: int
    identities: tuple[int, ...]
    frames: int  # of each person

    def run(self) -> tuple[float, float]:
        """Seconds to build a person, and frames a second once it is there."""
        Studio(self.identities[0], self.identities[0], 64, 64)  # loads compiled code
        built, rendered = 0.0, 0.0
        for identity in self.identities:
            start = time.perf_counter()
            studio = Studio(identity, identity, self.size, self.size)
            built += time.perf_counter() - start
            acts = lively_poses(identity, _WARM + self.frames)
            for index, pose in enumerate(acts):
                if index == _WARM:
                    start = time.perf_counter()
                studio.frame(pose, index)
            rendered += time.perf_counter() - start
        people = len(self.identities)
        return built / people, people * self.frames / rendered


def lively_poses(seed: int, frames: int) -> Sequence[Pose]:
    """Poses of a person whose mouth moves without words."""
    mouth = stream(seed, "babble").uniform(0, 0.5, (frames, len(CHANNELS)))
    return poses(mouth.astype(np.float32), motion(seed, frames))


def speeds(identities: Sequence[int], frames: int) -> list[Speed]:
    """Speed at each of SIZES over some people, `frames` (at least 1) of each; all processors render the same at the same time."""
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = []
    for size in SIZES:
        job = Job(size, tuple(identities), frames)
        build, one = job.run()
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            together = [future.result()[1] for future in [pool.submit(job.run) for _ in range(processes)]]
        found.append(Speed(size, build, one, sum(together), processes))
    return found
