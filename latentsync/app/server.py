"""Puts the page on the network, on this machine alone unless asked, and takes everything away again in the end."""

import logging
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from latentsync.app.handlers import Handlers, Sessions, find_examples
from latentsync.app.jobs import JobQueue, Limits
from latentsync.app.models import ModelCache
from latentsync.app.people import PeopleFinder
from latentsync.app.ui import OLDEST, Page, make_theme, resource
from latentsync.errors import InputError, LatentSyncError
from latentsync.pipelines.build import ROOT

logger = logging.getLogger(__name__)

UPLOADS = "GRADIO_TEMP_DIR"  # the variable that tells Gradio where to keep files
SWEEP_SECONDS = 600
BROKEN_OFF = 3600  # seconds after which an upload will not be finished any more


@dataclass(frozen=True)
class Settings:
    """Where and for whom the app is.

    Attributes:
        host, port: None lets Gradio choose: the variables GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, else 127.0.0.1 and the first
            free port from 7860.
        share: publish it on the internet through Gradio's tunnel.
        auth: (name, password) of those who may use it; empty: everybody who reaches it.
        concurrency: jobs that are worked on at the same time.
    """

    host: str | None = None
    port: int | None = None
    share: bool = False
    auth: Sequence[tuple[str, str]] = ()
    concurrency: int = 1


@contextmanager
def serving(shelf: ModelCache, limits: Limits, settings: Settings) -> Iterator[gr.Blocks]:
    """Serve the app for the length of a block; yields the running page.

    All files, uploads too, lie in one temporary folder, which goes with it.

    Raises:
        InputError: the port is taken, or the host is none of this machine's.
    """
    with (
        tempfile.TemporaryDirectory(prefix="latentsync-app-", ignore_cleanup_errors=True) as name,
        keeping_files_in(Path(name)),
        JobQueue(shelf, settings.concurrency) as shop,
    ):
        sessions = Sessions(Path(name))
        desk = Handlers(shop, sessions, limits, PeopleFinder())
        page = Page(desk, find_examples(ROOT / "assets")).build()
        stop = threading.Event()
        for work in (preload, sweep):
            threading.Thread(target=work, args=(desk, stop), name=work.__name__, daemon=True).start()
        try:
            launch(page, desk, limits, settings)
            yield page
        finally:
            stop.set()
            page.close(verbose=False)


def launch(page: gr.Blocks, desk: Handlers, limits: Limits, settings: Settings) -> None:
    """Start Gradio's server in its own thread. Raises InputError where it cannot listen."""

    def health() -> dict[str, object]:
        running, waiting = desk.workshop.counts()
        return {
            "status": "ok",
            "model": desk.workshop.shelf.loaded,
            "loads": desk.workshop.shelf.loads,
            "running": running,
            "waiting": waiting,
        }

    @asynccontextmanager
    async def with_health(app: gr.routes.App) -> AsyncIterator[None]:  # before the first request is answered
        app.add_api_route("/health", health)
        yield

    mark = Path(__file__).with_name("mark.svg")
    try:
        page.launch(
            server_name=settings.host,
            server_port=settings.port,
            share=settings.share,
            auth=list(settings.auth) or None,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            max_file_size=f"{limits.megabytes}mb",
            theme=make_theme(),
            css=resource("style.css"),
            favicon_path=mark,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            app_kwargs={"lifespan": with_health},
        )
    except OSError as error:
        raise InputError(
            f"The app cannot listen at {settings.host or 'this machine'}, port {settings.port or '7860 and up'}: {error}"
        ) from None


@contextmanager
def keeping_files_in(folder: Path) -> Iterator[None]:
    """Let Gradio keep its files in a folder for the length of a block."""
    before = os.environ.get(UPLOADS)
    os.environ[UPLOADS] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[UPLOADS]
        else:
            os.environ[UPLOADS] = before


def preload(desk: Handlers, stop: threading.Event) -> None:
    """Load the default model before somebody asks; what is wrong with it is told now, and again to whoever asks."""
    shelf = desk.workshop.shelf
    try:
        with shelf.use(shelf.default.key):
            pass
    except LatentSyncError as error:
        logger.error("%s", error)


def sweep(desk: Handlers, stop: threading.Event) -> None:
    """Forget sessions that did nothing for long (clients that went without a word) and uploads that were broken off."""
    while not stop.wait(SWEEP_SECONDS):
        for owner in desk.sessions.stale(OLDEST):
            desk.forget(owner)
        desk.sessions.tidy(BROKEN_OFF)
