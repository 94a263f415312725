"""A run from its first look at the folders to its last word in the manifest."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from latentsync.errors import LatentSyncError, first_line
from preprocess.executors.base import Executor
from preprocess.manifest import Manifest, Places
from preprocess.manifest_file import open_manifest
from preprocess.ownership import check_places, claim_folders, run_lock, sweep
from preprocess.plan import Step, plan_steps
from preprocess.progress import Progress
from preprocess.raw_files import find_raw_files, open_looking_first
from preprocess.resume import CRASHED, FAILED, TIMED_OUT, drop_stale, reopen_lost, reopen_rejected
from preprocess.running import Run, RunOptions
from preprocess.stage import Stage

logger = logging.getLogger("preprocess.pipeline")

_OLD = 600.0  # seconds after which an unfinished file of a run that died is no longer anybody's work


@dataclass(frozen=True)
class Order:
    """What a run is to do.

    Attributes:
        stages: in order.
        input: folder of raw files, only read.
        output: folder that gets the steps' folders and the manifest.
        options: see there.
        try_again: give clips that timed out or crashed in a run before another chance.
        settings: what the manifest notes about the run.
        show_progress: whether a line tells how far it is.
    """

    stages: Sequence[Stage]
    input: Path
    output: Path
    options: RunOptions = field(default_factory=RunOptions)
    try_again: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    show_progress: bool = False


def run_pipeline(order: Order, make_executor: Callable[[Sequence[Step]], Executor]) -> Path:
    """Do what is left to do; the folder with the results.

    Raises:
        InputError: the folders cannot be used, or another run is at work in them.
        OutputError: the disk is full, or cannot be written.
        LatentSyncError: a step cannot work at all.
    """
    places = Places(order.input.resolve(), order.output.resolve())
    first, *others = order.stages
    stages = [replace(first, open=partial(open_looking_first, stage=first)), *others]
    steps = plan_steps(stages, places.output)
    check_places(places, steps)
    with run_lock(places.output), open_manifest(places) as manifest:
        died = manifest.died()
        if died:
            logger.info("The run before did not come to its end: going on where it stopped")
            sweep(steps, before=time.time() - _OLD)
        drop_stale(manifest, steps)
        claim_folders(manifest, steps)
        reopen_lost(manifest, steps)
        reopen_rejected(manifest, (FAILED, CRASHED, TIMED_OUT) if order.try_again else (FAILED,))
        _work(order, manifest, steps, make_executor, died)
    return places.output


def _work(order: Order, manifest: Manifest, steps: list[Step], make_executor: Callable[[Sequence[Step]], Executor], died: bool) -> None:
    """Scan and work; note in the manifest how it went, however it went."""
    scan = find_raw_files(manifest.places.input)
    scan = chain(list(islice(scan, 1)), scan)  # a folder that cannot be read is refused before anyone is asked to work
    number = manifest.begin_run(order.settings, steps)
    progress = Progress([step.name for step in steps], order.show_progress)
    ending = "interrupted"
    run = None
    try:
        executor = make_executor(steps)
        try:
            run = Run(manifest, steps, scan, executor, progress, number, order.options)
            run.go()
            ending = "done"
        finally:
            executor.close(at_once=ending != "done")
    except LatentSyncError as error:
        ending = first_line(error)
        raise
    finally:
        progress.close()
        if died or ending != "done" or (run is not None and run.killed):
            sweep(steps, before=time.time() + 1)  # nobody is at work now
        numbers = {"seconds": progress.seconds(), "works": progress.works, "raw_hours": progress.raw_hours()}
        manifest.end_run(number, ending, cpu_idle=progress.cpu_idle(), **numbers)
