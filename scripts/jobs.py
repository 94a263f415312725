"""Jobs of the inference command: read from a file, run one after the other with one set of models, reported."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from latentsync.errors import InputError, first_line, reason_of
from latentsync.media.files import read_table, read_text, write_json, written_path
from latentsync.pipelines.face_cache import temporary_cache
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline, check_dubbing, check_inputs
from latentsync.pipelines.options import OPTION_TYPES, PATH_OPTIONS, LipsyncOptions, parse_option
from latentsync.pipelines.result import LipsyncResult
from latentsync.pipelines.script import DubbingScript

logger = logging.getLogger("latentsync.jobs")

PATH_KEYS = ("video_path", "audio_path", "video_out_path")
TABLES = (".csv", ".tsv", ".txt")


class JobSpec(NamedTuple):
    """One video, one sound, one output."""

    video_path: Path
    audio_path: Path
    video_out_path: Path
    options: LipsyncOptions

    def check(self) -> None:
        """Raise InputError or OutputError, before any work."""
        check_inputs(*self)

    def run(self, pipeline: LipsyncPipeline) -> LipsyncResult:
        return pipeline(*self)


class DubbingJob(NamedTuple):
    """One dubbing script, one output."""

    script: DubbingScript
    video_out_path: Path

    @property
    def video_path(self) -> Path:
        return self.script.video

    @property
    def options(self) -> LipsyncOptions:
        return self.script.options

    def check(self) -> None:
        """Raise InputError or OutputError, before any work."""
        check_dubbing(*self)

    def run(self, pipeline: LipsyncPipeline) -> LipsyncResult:
        return pipeline.dub(*self)


Job = JobSpec | DubbingJob


def read_jobs(path: Path, defaults: LipsyncOptions) -> list[JobSpec]:
    """The jobs of a table (.csv, .tsv or .txt, with a header) or a .yaml file (a list of mappings); paths are relative to its folder.

    `defaults` are the options of jobs that do not name them. Raises InputError; the sentence names the job.
    """
    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path} holds no jobs: give at least one with {', '.join(PATH_KEYS)}.")
    jobs = [job_of(row, f"{path}, job {number}", path.parent, defaults) for number, row in enumerate(rows, start=1)]
    outputs = [job.video_out_path.resolve() for job in jobs]
    twice = next((job.video_out_path for job, output in zip(jobs, outputs, strict=True) if outputs.count(output) > 1), None)
    if twice is not None:
        raise InputError(f"{path} names the output {twice} more than once: give each job its own.")
    return jobs


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a jobs file as mappings."""
    kind = path.suffix.lower()
    if kind in TABLES:
        return read_table(path)
    if kind not in (".yaml", ".yml"):
        raise InputError(f"{path} is not a jobs file: give a .csv or a .yaml file.")
    try:
        rows = OmegaConf.to_container(OmegaConf.create(read_text(path))) or []
    except (YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): it must be a list of jobs.") from error
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{path} must be a list of jobs, each with {', '.join(PATH_KEYS)}.")
    return [{key: value for key, value in row.items() if value not in (None, "")} for row in rows]


def job_of(row: Mapping[str, Any], where: str, folder: Path, defaults: LipsyncOptions) -> JobSpec:
    """One row as a job."""
    missing = [key for key in PATH_KEYS if not row.get(key)]
    if missing:
        raise InputError(f"{where}: {' and '.join(missing)} missing.")
    unknown = [str(key) for key in row if key not in OPTION_TYPES and key not in PATH_KEYS]
    if unknown:
        raise InputError(f"{where}: {', '.join(unknown)} is no option; the options are {', '.join(OPTION_TYPES)}.")
    try:
        chosen = {key: parse_option(key, value) for key, value in row.items() if key in OPTION_TYPES}
        chosen |= {key: str(written_path(folder, value)) for key, value in chosen.items() if key in PATH_OPTIONS}
        options = replace(defaults, **chosen)
    except (ValueError, InputError) as error:
        raise InputError(f"{where}: {error}") from error
    return JobSpec(*(written_path(folder, str(row[key])) for key in PATH_KEYS), options)


def run_jobs(jobs: Sequence[Job], build: Callable[[], LipsyncPipeline], *, write_report: bool, as_batch: bool) -> int:
    """Run jobs one after the other; the exit code. `build` makes the pipeline, once and only if there is work.

    `write_report` puts OUTPUT.report.json beside each output; `as_batch` skips outputs that exist and goes on after a failure.
    """
    pending = [job for job in jobs if not (as_batch and is_finished(job))]
    for job in jobs:
        if job not in pending:
            logger.info("%s exists: skipped.", job.video_out_path)
    if not pending:
        return 0
    ready = [job for job in pending if attempt(job.check, job, as_batch)]  # before the models are loaded
    pipeline, finished = build() if ready else None, 0
    repeats = len({job.video_path for job in ready}) < len(ready)
    with temporary_cache() if repeats else nullcontext() as cache:
        if pipeline is not None:
            pipeline.face_cache = pipeline.face_cache or cache
        for number, job in enumerate(ready, start=1):
            if as_batch:
                logger.info("Job %d of %d: %s", number, len(ready), job.video_out_path)
            finished += attempt(lambda job=job: run_job(pipeline, job, write_report), job, as_batch)
    if as_batch:
        print(f"{finished} made, {len(pending) - finished} failed, {len(jobs) - len(pending)} skipped")
    return 1 if finished < len(pending) else 0


def attempt(work: Callable[[], None], job: Job, go_on: bool) -> bool:
    """Do one job's work; in a batch a failure, whatever it is, is told and the others go on. Returns whether it went well."""
    try:
        work()
    except Exception as error:
        if not go_on:
            raise
        logger.error("%s was not made: %s", job.video_out_path, reason_of(error))
        logger.debug("Where it happened:", exc_info=error)
        return False
    return True


def run_job(pipeline: LipsyncPipeline, job: Job, write_report: bool) -> None:
    """One job from inputs to output and what the user is told."""
    result = job.run(pipeline)
    if write_report:
        write_json(result.output_path.with_suffix(".report.json"), result.as_dict())
    total = result.seconds["total"]
    print(
        f"{result.output_path}: {result.frames} frames ({result.duration:.2f} s), {result.generated} with a new mouth, "
        f"in {total:.1f} s ({result.frames / total:.1f} frames a second)"
    )


def is_finished(job: Job) -> bool:
    """Whether a job was done before: outputs appear whole or not at all, so one that is there is finished."""
    return not job.options.overwrite and job.video_out_path.is_file() and job.video_out_path.stat().st_size > 0
