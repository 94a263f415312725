"""What the page's events and the API's calls do."""

import asyncio
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

import gradio as gr

from latentsync.app.jobs import JobProgress, JobQueue, JobRequest, JobStage, QueuedJob
from latentsync.app.messages import describe_result, without_paths
from latentsync.app.models import ModelChoice
from latentsync.app.people import PeopleFinder, data_address
from latentsync.errors import InputError, LatentSyncError
from latentsync.pipelines.options import LipsyncOptions

POLL_SECONDS = 0.25  # between two yields of a job's progress
TOAST_SECONDS = 15
IDLE_SECONDS = 12 * 3600  # after which a session without a job is forgotten, and files that no session owns are removed
MODEL_DEFAULT = -1  # what the API's callers give for numbers that the model or the codec decides
NOBODY: dict[str, list] = {"people": [], "chosen": []}
DRAFT, STANDARD, FINE = "Draft", "Standard", "Fine"


def preset_options(preset: str, choice: ModelChoice) -> tuple[int, float, int]:
    """Steps, guidance and crf (of H.264) of a quality preset for a model."""
    if preset == DRAFT:
        return max(1, round(choice.inference_steps * 0.4)), 1.0, 23
    if preset == FINE:
        return choice.inference_steps * 2, choice.guidance_scale, 14
    return choice.inference_steps, choice.guidance_scale, 18


def toast(error: LatentSyncError | str) -> gr.Error:
    """A failure as Gradio shows it."""
    return gr.Error(str(error), duration=TOAST_SECONDS, title="This did not work", print_exception=False)


def owner_of(request: gr.Request) -> str:
    """The session that an event or a call comes from."""
    return request.session_hash or ""


@dataclass
class Session:
    """What belongs to one open page or one client.

    Attributes:
        folder: of its jobs; nobody can guess its name.
        uploads: files that were uploaded in it.
        seen: when it last did something, in seconds of the monotonic clock.
    """

    folder: Path
    uploads: set[Path] = field(default_factory=set)
    seen: float = field(default_factory=monotonic)


class Sessions:
    """The files of open pages and clients.

    Gradio's own clean-up (`delete_cache`) goes by age alone: it would keep the files of a closed page for hours and take the upload of a
    job that waits for long.

    Args:
        root: folder of all files of the app, uploads included; nothing outside of it is ever removed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def job_folder(self, key: str) -> Path:
        """A name for a fresh folder of a session, which is not made yet."""
        return self._session(key).folder / secrets.token_hex(8)

    def claim(self, key: str, path: Path | str) -> None:
        """Note that an uploaded file belongs to a session; files that are not under the root are not noted."""
        file = Path(path).resolve()
        if self._root in file.parents:
            self._session(key).uploads.add(file)

    def end(self, key: str) -> None:
        """Remove everything of a session. A file that another session uploaded too stays until that one ends."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                return
            kept = set().union(*(other.uploads for other in self._sessions.values()))
        for file in session.uploads - kept:
            file.unlink(missing_ok=True)
            if file.parent != self._root and file.parent.is_dir() and not any(file.parent.iterdir()):
                file.parent.rmdir()
        shutil.rmtree(session.folder, ignore_errors=True)

    def idle(self, seconds: float) -> list[str]:
        """Sessions that did nothing for so long: clients that went without a word."""
        with self._lock:
            return [key for key, session in self._sessions.items() if monotonic() - session.seen > seconds]

    def remove_unowned(self, seconds: float) -> None:
        """Remove files so old that no session owns: uploads that were broken off or never used."""
        with self._lock:
            owned = set().union(*({session.folder, *session.uploads} for session in self._sessions.values()))
        for file in self._root.rglob("*"):
            if file.is_file() and owned.isdisjoint({file, *file.parents}) and time() - file.stat().st_ctime > seconds:
                file.unlink(missing_ok=True)

    def _session(self, key: str) -> Session:
        with self._lock:
            session = self._sessions.setdefault(key, Session(self._root / f"session-{secrets.token_hex(16)}"))
            session.seen = monotonic()
            return session


class Handlers:
    """Queues the jobs of sessions, tells how far they are, and forgets a session with all its files when it ends.

    Args:
        max_minutes: the longest result.
    """

    def __init__(self, job_queue: JobQueue, sessions: Sessions, people_finder: PeopleFinder, max_minutes: float = 5.0) -> None:
        self.job_queue, self.sessions, self.max_minutes = job_queue, sessions, max_minutes
        self._people_finder = people_finder

    def submit(self, video: str | None, audio: str | None, model: str, options: Mapping[str, Any], owner: str) -> QueuedJob:
        """Put a job in line.

        Args:
            model: its key; "" for the default.
            options: of `LipsyncOptions`; None and "" mean the default.

        Raises:
            InputError: an input cannot be used; the sentence names files as their owner does.
        """
        if not video:
            raise InputError("There is no video yet: drop one, record one, or take an example.")
        if not audio:
            raise InputError("There is no sound yet: drop a recording, record one, or take an example.")
        for path in (video, audio):
            self.sessions.claim(owner, path)
        self.remove_leftovers(owner)
        choice = self.job_queue.model_cache.choice(model)
        try:
            given = {name: value for name, value in options.items() if value not in (None, "")}
            chosen = LipsyncOptions(**given).completed(choice.inference_steps, choice.guidance_scale)
            request = JobRequest(Path(video), Path(audio), chosen, choice.key, self.max_minutes)
            return self.job_queue.submit(request, owner, self.sessions.job_folder(owner))
        except InputError as error:
            raise InputError(without_paths(str(error), {Path(path): Path(path).name for path in (video, audio)})) from None

    async def follow(self, job: QueuedJob) -> AsyncIterator[JobProgress]:
        """How far a job is, again and again until its end; whoever stops listening before stops the job."""
        try:
            while not job.stage.is_end:
                yield self.job_queue.progress(job)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.job_queue.cancel(job)  # does nothing after the end

    def failure(self, job: QueuedJob) -> str:
        """Why a job failed."""
        names = {path: path.name for path in (job.request.video, job.request.audio)}
        return without_paths(job.error or "", names | {job.folder / "": ""})

    def people(self, video: str | None, owner: str) -> dict[str, list]:
        """The people of a video, to be drawn as buttons; nobody where it cannot be read, which is said in a toast."""
        if not video:
            return NOBODY
        path = Path(video)
        self.sessions.claim(owner, path)
        try:
            found = self._people_finder(path, self.max_minutes * 60)
        except LatentSyncError as error:
            gr.Warning(without_paths(str(error), {path: path.name}), title="About this video", duration=TOAST_SECONDS)
            return NOBODY
        people = [
            {"image": data_address(person.best.picture), "label": f"Person {number}", "point": person.points}
            for number, person in enumerate(found, start=1)
        ]
        return {"people": people, "chosen": []}

    def copy_example(self, video: Path, audio: Path, owner: str) -> tuple[str, str]:
        """Copies of an example for a session to call its own."""
        folder = self.sessions.job_folder(owner)
        folder.mkdir(parents=True)
        return shutil.copy(video, folder), shutil.copy(audio, folder)

    def forget(self, owner: str) -> None:
        """Stop a session's jobs and remove its files."""
        self.job_queue.cancel_owner(owner)
        self.sessions.end(owner)

    def remove_leftovers(self, active: str = "") -> None:
        """Forget sessions that are idle for long, have no job and are not the `active` one; remove old files that no session owns."""
        busy = {active, *(job.owner for job in self.job_queue.jobs())}
        for owner in set(self.sessions.idle(IDLE_SECONDS)) - busy:
            self.forget(owner)
        self.sessions.remove_unowned(IDLE_SECONDS)

    def health(self) -> dict[str, Any]:
        """The loaded model, and how many jobs run and wait."""
        running, waiting = self.job_queue.counts()
        cache = self.job_queue.model_cache
        return {"status": "ok", "model": cache.loaded, "loads": cache.loads, "running": running, "waiting": waiting}

    async def call(
        self,
        video: str | None,
        audio: str | None,
        face: str,
        model: str,
        inference_steps: float,
        guidance_scale: float,
        seed: float,
        length: str,
        keep_fps: bool,
        crf: float,
        request: gr.Request,
    ) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
        """The API: (None, progress) again and again, then (the result's file, its report).

        Raises:
            gr.Error: one sentence on why there is no result.
        """
        numbers = {"inference_steps": inference_steps, "guidance_scale": guidance_scale, "crf": crf}
        options = {name: None if number == MODEL_DEFAULT else number for name, number in numbers.items()}
        options |= {"face": face, "seed": seed, "length": length, "keep_fps": keep_fps}
        try:
            job = await asyncio.to_thread(self.submit, video, audio, model, options, owner_of(request))
        except LatentSyncError as error:
            raise toast(error) from None
        async for progress in self.follow(job):
            yield None, {"stage": progress.stage.value, "frames": progress.done, "total": progress.total, "ahead": progress.ahead}
        if job.result is None or job.stage is not JobStage.DONE:
            raise toast(self.failure(job) or "The job was stopped.")
        report = job.result.as_dict()
        for key in ("video_path", "audio_path", "output_path"):
            report[key] = Path(report[key]).name
        yield str(job.result.output_path), report | {"stage": "done", "model": job.request.model, "sentences": describe_result(job.result)}
