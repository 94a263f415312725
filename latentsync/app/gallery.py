"""The results of a session: what the page lists of each, and downloads of several as one file."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentsync.app.jobs import JobProgress, JobStage, QueuedJob
from latentsync.app.messages import describe_result, title_of

CHUNK = 1 << 20  # bytes of a download that are in memory at once
LISTED = 64  # jobs that a page may list


@dataclass(frozen=True)
class GalleryItem:
    """What the page shows of a job."""

    id: str
    name: str
    details: str  # preset and seed, or how far it is
    ended: float | None  # seconds since 1970
    poster: str | None  # address of its picture
    is_done: bool
    is_end: bool


def gallery_item(job: QueuedJob, progress: JobProgress) -> GalleryItem:
    percent = "" if progress.share is None else f" · {int(100 * progress.share)} %"
    details = {JobStage.FAILED: "Failed", JobStage.CANCELLED: "Stopped", JobStage.DONE: label_of(job)}.get(job.stage)
    name = job.result.output_path.name if job.result else job.request.video.stem
    done = job.stage is JobStage.DONE
    return GalleryItem(job.id, name, details or title_of(progress) + percent, job.ended, job.poster, done, job.stage.is_end)


def label_of(job: QueuedJob) -> str:
    """What tells one result from another: "Draft · seed 7"."""
    return f"{job.request.options.quality.title()} · seed {job.result.seed if job.result else job.request.options.seed}"


def report_of(job: QueuedJob) -> dict[str, Any]:
    """The report of a result, which names files as their owner does and no folder of this machine."""
    report = job.result.as_dict()
    for key in ("video_path", "audio_path", "output_path"):
        report[key] = Path(report[key]).name
    for line in report["lines"]:
        line["audio_path"] = Path(line["audio_path"]).name
    return report | {"stage": job.stage.value, "model": job.request.model, "sentences": describe_result(job.result)}


def settings_of(job: QueuedJob) -> dict[str, Any]:
    """What a result was made with, to make it again."""
    options = asdict(job.request.options) | {"seed": job.result.seed}
    return {"model": job.request.model, "inputs": [file.name for file in job.request.files], **options}


class _Pipe:
    """A file that is written to and read from once, in order: what `zipfile` has written so far."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def zip_of(jobs: Sequence[QueuedJob]) -> Iterator[bytes]:
    """A .zip file of results, piece by piece: video, report and settings of each, in a folder of its own where there are several."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for number, job in enumerate(jobs, start=1):
            path, folder = job.result.output_path, f"{number:02d}-{job.result.output_path.stem}/" if len(jobs) > 1 else ""
            for name, content in (("report", report_of(job)), ("settings", settings_of(job))):
                archive.writestr(f"{folder}{path.stem}.{name}.json", json.dumps(content, indent=2, default=str))
            entry = zipfile.ZipInfo.from_file(path, f"{folder}{path.name}")  # stored: a video does not get smaller
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while piece := source.read(CHUNK):
                    target.write(piece)
                    yield pipe.take()
    yield pipe.take()
