"""What the page's events and the API's calls do."""

import asyncio
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

import gradio as gr

from latentsync.app.jobs import JobProgress, JobQueue, JobRequest, QueuedJob
from latentsync.app.messages import without_paths
from latentsync.app.people import PeopleFinder, data_address
from latentsync.errors import InputError, LatentSyncError
from latentsync.pipelines.options import LipsyncOptions

POLL_SECONDS = 0.25  # between two yields of a job's progress
TOAST_SECONDS = 15
KEPT_SECONDS = 12 * 3600  # that a file stays which no job needs and whose page or client did not end
NOBODY: dict[str, list] = {"people": [], "chosen": []}


def toast(error: LatentSyncError | str) -> gr.Error:
    return gr.Error(str(error), duration=TOAST_SECONDS, title="This did not work", print_exception=False)


def owner_of(request: gr.Request) -> str:
    """The session that an event or a call comes from."""
    return request.session_hash or ""


class Sessions:
    """The files of open pages and clients under `root`: uploads, and a folder of jobs, whose name nobody can guess.

    Gradio's own clean-up (`delete_cache`) goes by age alone: it would take the upload of a job that waits for long.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._folders: defaultdict[str, Path] = defaultdict(lambda: self._root / f"session-{secrets.token_hex(16)}")
        self._uploads: defaultdict[str, set[Path]] = defaultdict(set)
        self._lock = threading.Lock()

    def job_folder(self, key: str) -> Path:
        """A name for a fresh folder of a session, which is not made yet."""
        with self._lock:
            return self._folders[key] / secrets.token_hex(8)

    def claim(self, key: str, path: Path | str) -> None:
        """Note that a session uses an uploaded file; files that are not under the root are not noted."""
        file = Path(path).resolve()
        if self._root in file.parents and file.is_file():
            file.touch()  # `remove_old` goes by this
            with self._lock:
                self._uploads[key].add(file)

    def end(self, key: str) -> None:
        """Remove everything of a session. A file that another session uploaded too stays until that one ends."""
        with self._lock:
            folder, uploads = self._folders.pop(key, None), self._uploads.pop(key, set())
            uploads = uploads.difference(*self._uploads.values())
        for file in uploads:
            file.unlink(missing_ok=True)
            if file.parent != self._root and file.parent.is_dir() and not any(file.parent.iterdir()):
                file.parent.rmdir()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_old(self, needed: set[Path]) -> None:
        """Remove files not used for long, of connections that broke, but for those `needed` and those in `needed` folders."""
        with suppress(FileNotFoundError):  # of a session that ended meanwhile: the rest waits for the next time
            for file in self._root.rglob("*"):
                if file.is_file() and needed.isdisjoint({file, *file.parents}) and time() - file.stat().st_ctime > KEPT_SECONDS:
                    file.unlink(missing_ok=True)


class Handlers:
    """Queues the jobs of sessions, tells how far they are, and forgets a session with all its files when it ends."""

    def __init__(self, job_queue: JobQueue, sessions: Sessions, people_finder: PeopleFinder, max_minutes: float = 5.0) -> None:
        self.job_queue, self.sessions, self.max_minutes = job_queue, sessions, max_minutes
        self._people_finder = people_finder

    def submit(self, video: str | None, audio: str | None, model: str, options: Mapping[str, Any], owner: str) -> QueuedJob:
        """Put a job in line.

        `model`: its key, "" for the default. `options`: of `LipsyncOptions`; None and "" mean the default. Raises InputError where an
        input cannot be used; the sentence names files as their owner does.
        """
        if not video:
            raise InputError("There is no video yet: drop one, record one, or take an example.")
        if not audio:
            raise InputError("There is no sound yet: drop a recording, record one, or take an example.")
        for path in (video, audio):
            self.sessions.claim(owner, path)
        self.remove_leftovers()
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
        names = {path: path.name for path in (job.request.video, job.request.audio)}
        return without_paths(job.error or "", names | {job.folder / "": ""})

    def people(self, video: str | None, request: gr.Request) -> gr.HTML:
        """The people of a video as buttons; nobody where it cannot be read, which is said in a toast."""
        found = []
        if video:
            self.sessions.claim(owner_of(request), video)
            try:
                found = self._people_finder(Path(video), self.max_minutes * 60)
            except LatentSyncError as error:
                names = {Path(video): Path(video).name}
                gr.Warning(without_paths(str(error), names), title="About this video", duration=TOAST_SECONDS)
        people = enumerate(found, start=1)
        buttons = [{"image": data_address(picture), "label": f"Person {number}", "point": points} for number, (picture, points) in people]
        return gr.HTML(NOBODY | {"people": buttons}, visible=True if buttons else "hidden")

    def claim(self, file: str | None, request: gr.Request) -> None:
        if file:
            self.sessions.claim(owner_of(request), file)

    def example(self, video: Path, audio: Path) -> Callable[[gr.Request], tuple[str, str]]:
        """An event that gives a session copies of its own."""

        def take(request: gr.Request) -> tuple[str, str]:
            folder = self.sessions.job_folder(owner_of(request))
            folder.mkdir(parents=True)
            return shutil.copy(video, folder), shutil.copy(audio, folder)

        return take

    def cancel(self, request: gr.Request) -> None:
        self.job_queue.cancel_owner(owner_of(request))

    def forget(self, request: gr.Request) -> None:
        """A page was closed, or a client went away."""
        self.cancel(request)
        self.sessions.end(owner_of(request))

    def remove_leftovers(self) -> None:
        needed = [path for job in self.job_queue.jobs() for path in (job.request.video, job.request.audio, job.folder)]
        self.sessions.remove_old({path.resolve() for path in needed})

    def health(self) -> dict[str, Any]:
        """The loaded model, and how many jobs run and wait."""
        running, waiting = self.job_queue.counts()
        cache = self.job_queue.model_cache
        return {"status": "ok", "model": cache.loaded, "loads": cache.loads, "running": running, "waiting": waiting}
