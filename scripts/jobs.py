"""Jobs of the inference command: read from a file, done with one set of models, their outcomes in a table."""

import csv
import io
import logging
import platform
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from latentsync.errors import InputError, LatentSyncError, OutputError, first_line, reason_of
from latentsync.media.files import read_table, read_text, write_json, write_text, written_path
from latentsync.pipelines.face_cache import temporary_cache
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline, ProgressCallback
from latentsync.pipelines.options import OPTION_TYPES, PATH_OPTIONS, LipsyncOptions, parse_option
from latentsync.pipelines.result import LipsyncResult
from latentsync.pipelines.script import DubbingScript, check_dubbing, check_inputs
from latentsync.pipelines.timeline import Part

logger = logging.getLogger("latentsync.jobs")

PATH_KEYS = ("video_path", "audio_path", "video_out_path")
TABLES = (".csv", ".tsv", ".txt")
MADE, FAILED, SKIPPED = "made", "failed", "skipped"  # how a job ends
OUTCOME_COLUMNS = (*PATH_KEYS, "status", "reason", "frames", "generated", "seed", "seconds", "machine", "tries")


class JobSpec(NamedTuple):
    """One video, one sound, one output."""

    video_path: Path
    audio_path: Path
    video_out_path: Path
    options: LipsyncOptions

    def check(self) -> None:
        """Raise InputError or OutputError, before any work."""
        check_inputs(*self)

    def run(self, pipeline: LipsyncPipeline, callback: ProgressCallback | None, part: Part | None = None) -> LipsyncResult:
        return pipeline(*self, callback, part=part)


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

    def run(self, pipeline: LipsyncPipeline, callback: ProgressCallback | None, part: Part | None = None) -> LipsyncResult:
        return pipeline.dub(*self, callback, part=part)


class PartJob(NamedTuple):
    """Some segments of a long job, made by one process while others make others; afterwards the job itself joins them."""

    whole: JobSpec | DubbingJob
    part: Part

    @property
    def video_path(self) -> Path:
        return self.whole.video_path

    @property
    def video_out_path(self) -> Path:
        return self.whole.video_out_path

    @property
    def options(self) -> LipsyncOptions:
        return self.whole.options

    def run(self, pipeline: LipsyncPipeline, callback: ProgressCallback | None) -> LipsyncResult:
        return self.whole.run(pipeline, callback, self.part)


Job = JobSpec | DubbingJob | PartJob


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


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: JobSpec
    status: str  # MADE, FAILED or SKIPPED
    reason: str = ""  # why it was not made, in a sentence
    result: LipsyncResult | None = None  # of a job that was made
    machine: str = field(default_factory=platform.node)
    tries: int = 1


Outcomes = Generator[Outcome, None, None]


class OutcomeTable(AbstractContextManager):
    """JOBS.outcomes.csv beside a jobs file: a row for each job, written as soon as it is known how it ended; a context manager.

    Jobs that are `finished` get their rows of the run that made them. Raises OutputError where it cannot be written.
    """

    def __init__(self, jobs_path: Path, finished: Sequence[JobSpec]) -> None:
        self.path = jobs_path.with_suffix(".outcomes.csv")
        self.counts = Counter[str]()
        self._finished = finished

    def __enter__(self) -> "OutcomeTable":
        made = {row["video_out_path"]: row for row in self._read() if row["status"] == MADE}
        write_text(self.path, "")
        self._file = self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
        self._writer = csv.DictWriter(self._file, OUTCOME_COLUMNS, lineterminator="\n")
        self._writer.writeheader()
        for job in self._finished:
            self._write(made.get(str(job.video_out_path)) or self._row(Outcome(job, SKIPPED)))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Write the row of a job and count it."""
        self.counts[outcome.status] += 1
        self._write(self._row(outcome) | {"machine": outcome.machine, "tries": outcome.tries})

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        job, result = outcome.job, outcome.result
        row = {name: getattr(job, name) for name in PATH_KEYS} | {"status": outcome.status, "reason": outcome.reason}
        if result is not None:
            row |= {name: getattr(result, name) for name in ("frames", "generated", "seed")} | {"seconds": result.seconds["total"]}
        return row

    def _write(self, row: Mapping[str, Any]) -> None:
        try:
            self._writer.writerow(row)
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {first_line(error)}") from None

    def _read(self) -> list[dict[str, str]]:
        """The rows of the run before; of one that was killed, those that are whole."""
        if not self.path.is_file():
            return []
        rows = csv.DictReader(io.StringIO(read_text(self.path)))
        return [row for row in rows if set(row) == set(OUTCOME_COLUMNS) and None not in row.values()]


def run_single(job: Job, build: Callable[[], LipsyncPipeline], write_report: bool) -> int:
    """Run one job; raises what goes wrong."""
    job.check()  # before the models are loaded
    tell_result(run_job(build(), job, write_report))
    return 0


def run_spread(job: Job, work: Callable[[Sequence[Job]], Outcomes]) -> int:
    """Run one job by `work`, as `run_batch` takes it; raises what goes wrong."""
    job.check()
    with closing(work([job])) as outcomes:
        outcome = next(outcomes)
    if outcome.result is None:
        raise LatentSyncError(outcome.reason)
    tell_result(outcome.result)
    return 0


def run_batch(jobs: Sequence[JobSpec], jobs_path: Path, work: Callable[[Sequence[JobSpec]], Outcomes]) -> int:
    """Run the jobs of a file and write their outcomes beside it; the exit code. Outputs that exist are skipped; failures are told.

    `work` does jobs whose inputs are sound and yields how each ended, in any order: see `work_here`.
    """
    finished = [job for job in jobs if is_finished(job)]
    for job in finished:
        logger.info("%s exists: skipped.", job.video_out_path)
    with OutcomeTable(jobs_path, finished) as table:
        ready = []
        for job in jobs:
            if job in finished:
                continue
            checked = attempt(job.check, job)  # before the models are loaded
            if checked.status == FAILED:
                table.add(checked)
            else:
                ready.append(job)
        with closing(work(ready)) as outcomes:
            for outcome in outcomes if ready else ():
                table.add(outcome)
                if outcome.result is not None:
                    tell_result(outcome.result)
    made, failed = (table.counts[status] for status in (MADE, FAILED))
    print(f"{made} made, {failed} failed, {len(finished)} skipped: {table.path}")
    return 1 if failed else 0


def work_here(jobs: Sequence[JobSpec], build: Callable[[], LipsyncPipeline], write_report: bool) -> Outcomes:
    """Do jobs one after the other with one set of models."""
    pipeline = build()
    with shared_faces(pipeline, jobs):
        for number, job in enumerate(jobs, start=1):
            logger.info("Job %d of %d: %s", number, len(jobs), job.video_out_path)
            yield attempt(lambda job=job: run_job(pipeline, job, write_report), job)


@contextmanager
def shared_faces(pipeline: LipsyncPipeline, jobs: Sequence[JobSpec]) -> Iterator[None]:
    """Let a pipeline without a cache of faces keep them in a temporary one where jobs share a video."""
    if pipeline.face_cache is not None or len({job.video_path for job in jobs}) == len(jobs):
        yield
        return
    with temporary_cache() as pipeline.face_cache:
        yield


def attempt(work: Callable[[], LipsyncResult | None], job: JobSpec) -> Outcome:
    """Do a job's work, or a part of it; a failure, whatever it is, is told and the other jobs go on."""
    try:
        return Outcome(job, MADE, result=work())
    except Exception as error:
        logger.error("%s was not made: %s", job.video_out_path, reason_of(error))
        logger.debug("Where it happened:", exc_info=error)
        return Outcome(job, FAILED, reason_of(error))


def run_job(pipeline: LipsyncPipeline, job: Job, write_report: bool, callback: ProgressCallback | None = None) -> LipsyncResult:
    """One job from inputs to output; `write_report` puts OUTPUT.report.json beside it."""
    result = job.run(pipeline, callback)
    if write_report and not isinstance(job, PartJob):
        write_json(result.output_path.with_suffix(".report.json"), result.as_dict())
    return result


def tell_result(result: LipsyncResult) -> None:
    total = result.seconds["total"]
    print(
        f"{result.output_path}: {result.frames} frames ({result.duration:.2f} s), {result.generated} with a new mouth, "
        f"in {total:.1f} s ({result.frames / total:.1f} frames a second)"
    )


def is_finished(job: Job) -> bool:
    """Whether a job was done before: outputs appear whole or not at all, so one that is there is finished."""
    return (
        not isinstance(job, PartJob)
        and not job.options.overwrite
        and job.video_out_path.is_file()
        and job.video_out_path.stat().st_size > 0
    )
