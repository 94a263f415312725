"""Where jobs wait and are done: a queue in order of arrival, and threads that take from it."""

import logging
import threading
from collections import deque
from pathlib import Path
from types import TracebackType

from latentsync.app.before import write_before
from latentsync.app.models import ModelShelf
from latentsync.app.order import Order
from latentsync.app.ticket import JobCancelled, Progress, Stage, Ticket
from latentsync.errors import InputError, LatentSyncError, reason_of

logger = logging.getLogger(__name__)

BEFORE = "before.mp4"  # name of the original in a job's folder
MOST_WAITING = 32  # jobs that may wait


class Workshop:
    """Does jobs one after the other on each of its threads; a context manager, whose end cancels what is left.

    Args:
        shelf: the models.
        concurrency: jobs that are worked on at the same time, with one set of networks.
    """

    def __init__(self, shelf: ModelShelf, concurrency: int = 1) -> None:
        self.shelf = shelf
        self.shelf.on_step = self._step
        self._here = threading.local()  # the ticket that this thread works on
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"worker-{k}", daemon=True) for k in range(concurrency)]

    def __enter__(self) -> "Workshop":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._closed = True
            tickets = [*self._waiting, *self._running]
            self._changed.notify_all()
        for ticket in tickets:
            self.cancel(ticket)
        for thread in self._threads:
            thread.join()

    def submit(self, order: Order, owner: str, folder: Path) -> Ticket:
        """Put a job in line, after a look at its inputs.

        Raises:
            InputError: an input cannot be used, or too many jobs wait.
        """
        order.check()
        ticket = Ticket(order, owner, folder)
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                raise InputError(f"{MOST_WAITING} jobs are waiting already: try again in some minutes.")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Stop a job: at once while it waits, at the next frame or step while it runs."""
        ticket.cancel()
        with self._changed:
            waits = ticket in self._waiting
            if waits:
                self._waiting.remove(ticket)
        if waits:
            ticket.end(Stage.CANCELLED)

    def cancel_owner(self, owner: str) -> None:
        """Stop all jobs of a session."""
        with self._changed:
            tickets = [ticket for ticket in (*self._waiting, *self._running) if ticket.owner == owner]
        for ticket in tickets:
            self.cancel(ticket)

    def progress(self, ticket: Ticket) -> Progress:
        """How far a job is, and while it waits how many come before it."""
        with self._changed:
            ahead = self._waiting.index(ticket) + len(self._running) if ticket in self._waiting else 0
        return ticket.progress(ahead)

    def counts(self) -> tuple[int, int]:
        """Jobs that run, jobs that wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def _work(self) -> None:
        while (ticket := self._take()) is not None:
            try:
                self._do(ticket)
                end = (Stage.DONE, None)
            except JobCancelled:
                end = (Stage.CANCELLED, None)
            except LatentSyncError as error:
                end = (Stage.FAILED, str(error))
            except Exception as error:  # whatever it is, the next job must have its turn
                logger.error("A job failed unexpectedly:", exc_info=error)
                end = (Stage.FAILED, f"There was an {reason_of(error)}.")
            with self._changed:
                self._running.remove(ticket)
            ticket.end(*end)

    def _take(self) -> Ticket | None:
        """The next job, None when the workshop closes."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            ticket = self._waiting.popleft()
            self._running.append(ticket)
            return ticket

    def _do(self, ticket: Ticket) -> None:
        order = ticket.order
        ticket.begin(Stage.LOADING)
        self._here.ticket = ticket
        with self.shelf.use(order.model) as pipeline:
            ticket.check()
            ticket.folder.mkdir(parents=True, exist_ok=True)
            ticket.result = pipeline(
                order.video, order.audio, ticket.folder / f"{order.video.stem}_new_words.mp4", order.options, callback=ticket.advance
            )
        ticket.begin(Stage.COMPARE)
        ticket.before = write_before(ticket.result, ticket.folder / BEFORE, on_frame=ticket.check)

    def _step(self) -> None:
        """Frames come out a clip at a time, which can take a minute on a slow machine: a job can be stopped between two passes."""
        ticket = getattr(self._here, "ticket", None)
        if ticket is not None:
            ticket.step()
