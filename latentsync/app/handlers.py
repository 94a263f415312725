"""What the page's events and the API's calls do."""

import asyncio
import json
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import quote

import gradio as gr
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from latentsync.app.forecast import Forecast, is_silent, make_forecast
from latentsync.app.gallery import LISTED, zip_of
from latentsync.app.jobs import MAX_PIXELS, JobProgress, JobQueue, JobRequest, JobStage, QueuedJob, check_pixels
from latentsync.app.messages import describe_seconds, in_page_words, without_paths
from latentsync.app.people import FoundPeople, PeopleFinder, data_address
from latentsync.app.previews import Previews
from latentsync.errors import InputError, LatentSyncError
from latentsync.media.probe import probe
from latentsync.pipelines.options import LipsyncOptions

POLL_SECONDS = 0.25  # between two yields of a job's progress
TOAST_SECONDS = 15
NOBODY: dict[str, list] = {"people": [], "frames": [], "chosen": []}


def toast(error: LatentSyncError | str) -> gr.Error:
    return gr.Error(str(error), duration=TOAST_SECONDS, title="This did not work", print_exception=False)


def owner_of(request: gr.Request) -> str:
    """The session that an event or a call comes from."""
    return request.session_hash or ""


def address_of(request: gr.Request) -> str:
    """Where an event or a call comes from."""
    return request.client.host if request.client else ""


class Sessions:
    """The files under `root` of open pages and of clients: which upload is whose, and who was there lately.

    Gradio's own clean-up (`delete_cache`) goes by age alone: it would take the upload of a job that waits for long. Its end of a session
    (`unload`) comes when a connection breaks, too: a page is gone only when it has not asked for anything for `keep_seconds`.
    """

    def __init__(self, root: Path, keep_seconds: float = 1800.0, max_bytes: float = inf) -> None:
        self._root, self.keep_seconds, self.max_bytes = root.resolve(), keep_seconds, max_bytes
        self._pages: set[str] = set()
        self._seen: dict[str, float] = {}
        self._uploads: defaultdict[str, list[Path]] = defaultdict(list)  # of a session, those it used last at the end
        self._lock = threading.Lock()

    def fresh_folder(self, kind: str) -> Path:
        """A name that nobody can guess, for a folder that is not made yet."""
        return self._root / f"{kind}-{secrets.token_hex(16)}"

    def see(self, key: str, is_page: bool = False) -> None:
        """Note that a session is there."""
        with self._lock:
            self._seen[key] = monotonic()
            if is_page:
                self._pages.add(key)

    def is_page(self, key: str) -> bool:
        return key in self._pages

    def is_gone(self, key: str) -> bool:
        return monotonic() - self._seen.get(key, -inf) > self.keep_seconds

    def claim(self, key: str, path: Path | str, needed: Collection[Path] = ()) -> None:
        """Note that a session uses an upload. Where all are more than `max_bytes`, the oldest go.

        The last two and those `needed` stay. Files that are not under the root are not noted.
        """
        file = Path(path).resolve()
        if self._root not in file.parents or not file.is_file():
            return
        self.see(key)
        with self._lock:
            uploads = [other for other in self._uploads[key] if other != file and other.is_file()] + [file]
            old = []
            while len(uploads) > 2 and sum(other.stat().st_size for other in uploads) > self.max_bytes:
                old.append(uploads.pop(0))
            self._uploads[key] = uploads
        self.release(key, old, needed)

    def release(self, key: str, files: Collection[Path], needed: Collection[Path] = ()) -> None:
        """A session uses uploads no longer: those go that no other session uses, and that are not `needed`."""
        with self._lock:
            files = {file.resolve() for file in files}
            self._uploads[key] = [file for file in self._uploads[key] if file not in files]
            used = {file for uploads in self._uploads.values() for file in uploads} | set(needed)
            if not self._uploads[key]:
                del self._uploads[key]
        for file in files - used:
            if self._root in file.parents:
                self._remove(file)

    def end(self, key: str, needed: Collection[Path] = ()) -> None:
        """Remove all uploads of a session but those `needed`. A file that another session uploaded too stays until that one ends."""
        self.release(key, list(self._uploads.get(key, ())), needed)
        with self._lock:
            self._seen.pop(key, None)
            self._pages.discard(key)

    def remove_old(self, needed: Collection[Path]) -> None:
        """End the sessions that are gone, and remove files that nobody claimed in that time, unless they or their folders are `needed`."""
        for key in [key for key in list(self._seen) if self.is_gone(key)]:
            self.end(key, needed)
        with self._lock:
            used = {file for uploads in self._uploads.values() for file in uploads} | set(needed)
        with suppress(FileNotFoundError):  # removed meanwhile: the rest waits for the next time
            for file in self._root.rglob("*"):
                if file.is_file() and used.isdisjoint({file, *file.parents}) and time() - file.stat().st_ctime > self.keep_seconds:
                    self._remove(file)

    def is_claimed(self, file: Path) -> bool:
        with self._lock:
            return any(file in uploads for uploads in self._uploads.values())

    def _remove(self, file: Path) -> None:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # it holds other files, or is gone
            if file.parent != self._root:
                file.parent.rmdir()


class UploadLimit:
    """Middleware that refuses uploads of an address that has sent too many bytes which no page or call uses."""

    def __init__(self, app: Any, sessions: Sessions, max_bytes: int) -> None:
        self._app, self._sessions, self._max_bytes = app, sessions, max_bytes
        self._unclaimed: defaultdict[str, set[Path]] = defaultdict(set)  # by address

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self._app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        for files in self._unclaimed.values():
            files.difference_update([file for file in files if not file.is_file() or self._sessions.is_claimed(file)])
        if sum(file.stat().st_size for file in self._unclaimed[address]) > self._max_bytes:
            wait = describe_seconds(self._sessions.keep_seconds)
            sentence = f"Files were uploaded from here which nothing uses, as many as are allowed: they go after {wait}, try again then."
            await PlainTextResponse(sentence, status_code=413)(scope, receive, send)
            return
        body = bytearray()

        async def note(message: Any) -> None:
            body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                with suppress(ValueError, TypeError):  # a sentence that refuses the upload
                    self._unclaimed[address].update(Path(path).resolve() for path in json.loads(body))
            await send(message)

        await self._app(scope, receive, note)


class Handlers:
    """Queues jobs, tells whoever asks how far they are, and removes each with its files when nobody has asked for long."""

    def __init__(
        self, job_queue: JobQueue, sessions: Sessions, people_finder: PeopleFinder, max_minutes: float = 5.0, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.job_queue, self.sessions, self.max_minutes, self.max_pixels = job_queue, sessions, max_minutes, max_pixels
        self._people_finder, self._previews = people_finder, Previews()
        self._found: dict[Path, FoundPeople] = {}  # in videos that were looked at
        self._silent: dict[Path, bool] = {}  # of sounds that were heard
        self._jobs: dict[str, QueuedJob] = {}  # all that somebody may still watch

    def submit(
        self, video: str | None, audio: str | None, model: str, options: Mapping[str, Any], owner: str, address: str = ""
    ) -> QueuedJob:
        """Put a job in line.

        `model`: its key, "" for the default. `options`: of `LipsyncOptions`; None and "" mean the default. Raises InputError where an
        input cannot be used; the sentence names files as their owner does.
        """
        if not video:
            raise InputError("There is no video yet: drop one, record one, or take an example.")
        if not audio:
            raise InputError("There is no sound yet: drop a recording, record one, or take an example.")
        video, audio = (str(self._previews.original(path)) for path in (video, audio))
        for path in (video, audio):
            self.claim(path, owner)
        self.tidy()
        choice = self.job_queue.model_cache.choice(model)
        try:
            given = {name: value for name, value in options.items() if value not in (None, "")}
            chosen = LipsyncOptions(**given).completed(choice.sampling)
            request = JobRequest(Path(video), Path(audio), chosen, choice.key, self.max_minutes, self.max_pixels)
            job = self.job_queue.submit(request, owner, self.sessions.fresh_folder("job"), address)
        except InputError as error:
            raise InputError(in_page_words(without_paths(str(error), {Path(path): Path(path).name for path in (video, audio)}))) from None
        self._jobs[job.id] = job
        return job

    def job(self, name: str | None, page: str = "") -> QueuedJob | None:
        """A job by its id, which the session `page` now watches; None where there is none, or none any more."""
        if page:
            self.sessions.see(page, is_page=True)
        job = self._jobs.get(name or "")
        if job is not None:
            job.seen = monotonic()
        return job

    async def follow(self, job: QueuedJob) -> AsyncIterator[JobProgress]:
        """How far a job is, again and again until its end; for a caller of the API, who stops the job by not listening any more."""
        try:
            while not job.stage.is_end:
                self.sessions.see(job.owner)
                yield self.job_queue.progress(job)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.job_queue.cancel(job)  # does nothing after the end
            self.release_inputs(job)

    def release_inputs(self, job: QueuedJob) -> None:
        """A call of the API has ended: its uploads go at once, its result when its client does."""
        self.sessions.release(job.owner, job.request.files, self.needed(without=job))

    def failure(self, job: QueuedJob) -> str:
        names = {path: path.name for path in job.request.files}
        return in_page_words(without_paths(job.error or "", names | {job.folder / "": ""}))

    def people(self, video: str | None, request: gr.Request) -> gr.HTML:
        """The people of a video as boxes; none where it cannot be read, which is said in a toast, and where there is nobody to choose."""
        found = FoundPeople()
        if video:
            original = self._previews.original(video)
            for path in (video, str(original)):
                self.claim(path, owner_of(request))
            try:
                check_pixels(probe(original), self.max_pixels)
                found = self._people_finder(original, self.max_minutes * 60)
                self._found[original] = found
            except LatentSyncError as error:
                names = {path: path.name for path in (Path(video), original)}
                gr.Warning(in_page_words(without_paths(str(error), names)), title="About this video", duration=TOAST_SECONDS)
        is_choice = len(found.people) > 1
        boxes = [
            {"label": f"Person {number}", "point": person.points, "frame": person.frame, "place": person.place}
            for number, person in enumerate(found.people, start=1)
        ]
        value = {"people": boxes, "frames": [data_address(frame) for frame in found.frames]} if is_choice else {}
        return gr.HTML(NOBODY | value, visible=True if is_choice else "hidden")

    def forecast(self, video: str | None, audio: str | None, model: str, options: Mapping[str, Any]) -> Forecast:
        """What will happen with the files and options of a page; nothing of files that cannot be used, which pressing the button tells."""
        files = [None if path is None else self._previews.original(path) for path in (video, audio)]
        video_path, audio_path = files
        try:
            if audio_path is not None and audio_path not in self._silent:
                self._silent[audio_path] = is_silent(audio_path, self.max_minutes * 60)
            found, silent = self._found.get(video_path), self._silent.get(audio_path, False)
            given = {name: value for name, value in options.items() if value not in (None, "")}
            return make_forecast(self.job_queue, video_path, audio_path, model, LipsyncOptions(**given), found, silent)
        except LatentSyncError:
            return Forecast()

    def show_video(self, file: str | None, request: gr.Request) -> Any:
        """A video that the browser plays in the place of one that it does not, or of a photo; nothing where that is not needed."""
        return self._show(file, request, self._previews.video)

    def show_sound(self, file: str | None, request: gr.Request) -> Any:
        """A sound that the browser plays in the place of one that it does not, or of a video."""
        return self._show(file, request, self._previews.sound)

    def _show(self, file: str | None, request: gr.Request, preview: Callable[[Path, Path, float], Path]) -> Any:
        if not file:
            return gr.skip()
        owner = owner_of(request)
        self.claim(file, owner)
        try:
            info = probe(file)
            if info.video is not None and preview == self._previews.video:
                check_pixels(info, self.max_pixels)
            shown = str(preview(Path(file), self.sessions.fresh_folder("preview"), self.max_minutes * 60))
        except LatentSyncError as error:
            raise toast(in_page_words(without_paths(str(error), {Path(file): Path(file).name}))) from None
        self.claim(shown, owner)
        return shown

    def claim(self, file: str | None, owner: str) -> None:
        if file:
            self.sessions.claim(owner, file, self.needed())

    def example(self, video: Path, audio: Path) -> Callable[[], tuple[str, str]]:
        """An event that gives a session copies of its own."""

        def take() -> tuple[str, str]:
            folder = self.sessions.fresh_folder("example")
            folder.mkdir(parents=True)
            return shutil.copy(video, folder), shutil.copy(audio, folder)

        return take

    def close(self, owner: str) -> None:
        """A connection ended: what a client of the API did is removed, a page may come back."""
        if not self.sessions.is_page(owner):
            self._remove([job for job in self._jobs.copy().values() if job.owner == owner])
            self.sessions.end(owner, self.needed())

    def tidy(self) -> None:
        """Remove the jobs, running ones too, that nobody has asked for, and the files that nobody needs."""
        self._previews.forget_missing()
        for known in (self._found, self._silent):
            for path in [path for path in list(known) if not path.is_file()]:
                known.pop(path, None)
        gone = monotonic() - self.sessions.keep_seconds
        jobs = list(self._jobs.copy().values())
        self._remove([job for job in jobs if job.seen < gone and self.sessions.is_gone(job.owner)])
        for owner in {job.owner for job in jobs}:
            self._remove(self._too_many([job for job in jobs if job.owner == owner and job.stage.is_end]))
        self.sessions.remove_old(self.needed())

    def _remove(self, jobs: Sequence[QueuedJob]) -> None:
        """Stop jobs; those that have ended go, the others next time."""
        for job in jobs:
            self.job_queue.cancel(job)
            if job.stage.is_end:
                self._jobs.pop(job.id, None)
                shutil.rmtree(job.folder, ignore_errors=True)
                self.release_inputs(job)

    def remove(self, name: str) -> None:
        """Stop a job, or remove it with its files where it has ended; who knows its id may."""
        if job := self.job(name):
            self._remove([job])

    def _too_many(self, jobs: Sequence[QueuedJob]) -> list[QueuedJob]:
        """The oldest of the jobs of a session that have ended, of which only the newest have room in the session's bytes."""
        seen, size = set(), 0
        for place, job in enumerate(sorted(jobs, key=lambda job: -(job.ended or 0))):
            files = {file for file in (*job.request.files, *job.folder.rglob("*")) if file.is_file()} - seen
            seen, size = seen | files, size + sum(file.stat().st_size for file in files)
            if place and size > self.sessions.max_bytes:
                return sorted(jobs, key=lambda job: -(job.ended or 0))[place:]
        return []

    def results(self, names: Sequence[str]) -> list[QueuedJob]:
        """The jobs of these ids that have a result."""
        found = [self.job(name) for name in names]
        return [job for job in found if job is not None and job.stage is JobStage.DONE]

    def download(self, request: Request) -> Response:
        """The results of some jobs, by their ids, as one .zip file."""
        found = self.results(request.query_params.getlist("job")[:LISTED])
        if not found:
            return PlainTextResponse("These results are gone.", status_code=404)
        name = f"{found[0].result.output_path.stem}.zip" if len(found) == 1 else "results.zip"
        disposition = {"content-disposition": f"attachment; filename*=utf-8''{quote(name)}"}
        return StreamingResponse(zip_of(found), media_type="application/zip", headers=disposition)

    def needed(self, without: QueuedJob | None = None) -> set[Path]:
        """Inputs and folders of all jobs but one."""
        jobs = [job for job in self._jobs.copy().values() if job is not without]
        return {path.resolve() for job in jobs for path in (*job.request.files, job.folder)}

    def health(self) -> dict[str, Any]:
        """The loaded model, and how many jobs run and wait."""
        running, waiting = self.job_queue.counts()
        cache = self.job_queue.model_cache
        return {"status": "ok", "model": cache.loaded, "loads": cache.loads, "running": running, "waiting": waiting}
