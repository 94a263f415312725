"""What the page's events and the API's calls do."""

import asyncio
import logging
import secrets
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

import gradio as gr

from latentsync.app.jobs import JobProgress, JobQueue, JobRequest, JobStage, Limits, QueuedJob
from latentsync.app.messages import describe_result, without_paths
from latentsync.app.models import ModelChoice
from latentsync.app.people import PeopleFinder, data_address
from latentsync.errors import InputError, LatentSyncError
from latentsync.pipelines.options import LipsyncOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A video and the sound that it shall be given."""

    title: str
    video: Path
    audio: Path

    def copy_to(self, folder: Path) -> tuple[Path, Path]:
        """Copies for a session to call its own: (video, audio)."""
        folder.mkdir(parents=True)
        return tuple(Path(shutil.copy(path, folder)) for path in (self.video, self.audio))


def find_examples(folder: Path) -> list[Example]:
    """The demos of a folder, `demoN_video.mp4` with `demoN_audio.wav`."""
    pairs = [(video, video.with_name(video.name.replace("_video.mp4", "_audio.wav"))) for video in sorted(folder.glob("demo*_video.mp4"))]
    return [Example(f"Example {number}", video, audio) for number, (video, audio) in enumerate(pairs, start=1) if audio.is_file()]


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
    """The sessions of an app.

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

    def claim(self, key: str, path: Path | str | None) -> None:
        """Note that an uploaded file belongs to a session; files that are not under the root are not noted."""
        if path is None:
            return
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

    def stale(self, seconds: float) -> list[str]:
        """Sessions that did nothing for so long."""
        with self._lock:
            return [key for key, session in self._sessions.items() if monotonic() - session.seen > seconds]

    def tidy(self, seconds: float) -> None:
        """Remove what uploads left behind that were broken off so long ago: files that lie in the root itself."""
        for file in self._root.iterdir():
            if file.is_file() and time() - file.stat().st_mtime > seconds:
                file.unlink(missing_ok=True)

    def __len__(self) -> int:
        """Open sessions that own something."""
        return len(self._sessions)

    def _session(self, key: str) -> Session:
        with self._lock:
            session = self._sessions.setdefault(key, Session(self._root / f"session-{secrets.token_hex(16)}"))
            session.seen = monotonic()
            return session


LOOK_AGAIN = 0.25  # seconds between two looks at a job
TOAST_SECONDS = 15
UNSET = -1  # what the API's callers give for "the default"
NOBODY: dict[str, list] = {"people": [], "chosen": []}
DRAFT, STANDARD, FINE = "Draft", "Standard", "Fine"
CRF = {DRAFT: 23, STANDARD: 18, FINE: 14}  # of H.264
DRAFT_SHARE, FINE_SHARE = 0.4, 2.0  # of the steps that a model was made for


@dataclass(frozen=True)
class FormValues:
    """The inputs of one job as the page or the API gives them; None and "" mean the default."""

    video: str | None
    audio: str | None
    face: str = "largest"
    model: str = ""
    steps: float | None = None
    guidance: float | None = None
    seed: float | None = None
    length: str = "audio"
    keep_fps: bool = False
    crf: float | None = None


def settings_of(preset: str, choice: ModelChoice) -> tuple[int, float, int]:
    """Steps, guidance and crf of a quality preset for a model."""
    if preset == DRAFT:
        return max(1, round(choice.inference_steps * DRAFT_SHARE)), 1.0, CRF[DRAFT]
    if preset == FINE:
        return round(choice.inference_steps * FINE_SHARE), choice.guidance_scale, CRF[FINE]
    return choice.inference_steps, choice.guidance_scale, CRF[STANDARD]


def fresh_seed() -> int:
    """What the dice shows."""
    return secrets.randbelow(1_000_000)


def toast(error: LatentSyncError | str) -> gr.Error:
    """A failure as Gradio shows it."""
    return gr.Error(str(error), duration=TOAST_SECONDS, title="This did not work", print_exception=False)


class Handlers:
    """Takes orders of sessions, tells them how far they are, and forgets a session with all its files when it ends."""

    def __init__(self, workshop: JobQueue, sessions: Sessions, limits: Limits, finder: PeopleFinder) -> None:
        self.workshop, self.sessions, self.limits = workshop, sessions, limits
        self._finder = finder

    def submit(self, wishes: FormValues, owner: str) -> QueuedJob:
        """Put a job in line.

        Raises:
            InputError: an input cannot be used; the sentence names files as their owner does.
        """
        if not wishes.video:
            raise InputError("There is no video yet: drop one, record one, or take an example.")
        if not wishes.audio:
            raise InputError("There is no sound yet: drop a recording, record one, or take an example.")
        video, audio = Path(wishes.video), Path(wishes.audio)
        for path in (video, audio):
            self.sessions.claim(owner, path)
        choice = self.workshop.shelf.choice(wishes.model)
        try:
            options = LipsyncOptions(
                inference_steps=None if wishes.steps is None else int(wishes.steps),
                guidance_scale=wishes.guidance,
                seed=LipsyncOptions.seed if wishes.seed is None else int(wishes.seed),
                face=wishes.face or LipsyncOptions.face,
                length=wishes.length,
                keep_fps=wishes.keep_fps,
                crf=None if wishes.crf is None else int(wishes.crf),
            ).completed(choice.inference_steps, choice.guidance_scale)
            order = JobRequest(video, audio, options, choice.key, self.limits, steps=options.inference_steps or 1)
            return self.workshop.submit(order, owner, self.sessions.job_folder(owner))
        except InputError as error:
            raise InputError(without_paths(str(error), {video: video.name, audio: audio.name})) from None

    async def follow(self, ticket: QueuedJob) -> AsyncIterator[JobProgress]:
        """How far a job is, again and again until its end; whoever stops listening before stops the job."""
        try:
            while not ticket.stage.is_end:
                yield self.workshop.progress(ticket)
                await asyncio.sleep(LOOK_AGAIN)
        finally:
            self.workshop.cancel(ticket)  # does nothing after the end

    def failure(self, ticket: QueuedJob) -> str:
        """Why a job failed."""
        names = {path: path.name for path in (ticket.order.video, ticket.order.audio)}
        return without_paths(ticket.error or "", names | {ticket.folder / "": ""})

    def people(self, video: str | None, owner: str) -> dict[str, list]:
        """The people of a video, to be drawn as buttons; nobody where it cannot be read, which is said in a toast."""
        if not video:
            return NOBODY
        path = Path(video)
        self.sessions.claim(owner, path)
        try:
            self.limits.check_file(path)
            found = self._finder(path, self.limits.seconds)
        except LatentSyncError as error:
            gr.Warning(without_paths(str(error), {path: path.name}), title="About this video", duration=TOAST_SECONDS)
            return NOBODY
        people = [
            {"image": data_address(person.best.picture), "label": f"Person {number}", "point": person.points}
            for number, person in enumerate(found, start=1)
        ]
        return {"people": people, "chosen": []}

    def end(self, request: gr.Request) -> None:
        """A page was closed, or a client went away."""
        self.forget(request.session_hash or "")

    def forget(self, owner: str) -> None:
        """Stop a session's jobs and remove its files."""
        self.workshop.cancel_owner(owner)
        self.sessions.end(owner)

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
        steps, guidance, quality = (None if number == UNSET else number for number in (inference_steps, guidance_scale, crf))
        wishes = FormValues(video, audio, face, model, steps, guidance, seed, length, keep_fps, quality)
        try:
            ticket = await asyncio.to_thread(self.submit, wishes, request.session_hash or "")
        except LatentSyncError as error:
            raise toast(error) from None
        async for progress in self.follow(ticket):
            yield None, {"stage": progress.stage.value, "frames": progress.done, "total": progress.total, "ahead": progress.ahead}
        if ticket.result is None or ticket.stage is not JobStage.DONE:
            raise toast(self.failure(ticket) or "The job was stopped.")
        report = ticket.result.as_dict()
        for key in ("video_path", "audio_path", "output_path"):
            report[key] = Path(report[key]).name
        yield (
            str(ticket.result.output_path),
            {**report, "stage": "done", "model": ticket.order.model, "sentences": describe_result(ticket.result)},
        )
