"""Let reading, computing and writing overlap: one thread ahead of the work, one behind it, each with a short queue."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
_POLL_SECONDS = 0.1  # how often a blocked producer looks whether it is still wanted


def prefetch(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yield `items` in order while a thread computes up to `depth` of them ahead.

    What `items` raises is raised here, at its place. Closing this generator (or dropping it) ends the thread and closes `items`.
    """
    ahead: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(maxsize=max(depth, 1))
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(items, ahead, stop), name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ahead.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
            del value
    finally:
        stop.set()
        thread.join()


def _produce(items: Iterable[Item], ahead: "queue.Queue", stop: threading.Event) -> None:
    def put(kind: str, value: Item | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ahead.put((kind, value), timeout=_POLL_SECONDS)
                return

    try:
        with contextlib.closing(_iterator(items)) as iterator:
            for item in iterator:
                put("item", item)
                del item
                if stop.is_set():
                    return
        put("end", None)
    except BaseException as error:  # noqa: BLE001 - handed over to the thread that consumes, which raises it
        put("error", error)


def _iterator(items: Iterable[Item]) -> Iterator[Item]:
    """A generator over `items`, so that closing it closes a generator inside."""
    yield from items


class BackgroundWriter(Generic[Item]):
    """Hand items to `consume` in order on a thread, at most `depth` waiting; an error there is raised by the next call here."""

    def __init__(self, consume: Callable[[Item], None], depth: int) -> None:
        self._consume = consume
        self._waiting: queue.Queue[Item | None] = queue.Queue(maxsize=max(depth, 1))
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue one item; blocks while the queue is full. Raises what `consume` raised."""
        self._raise_error()
        self._waiting.put(item)

    def finish(self) -> None:
        """Wait until all is consumed. Raises what `consume` raised."""
        self._end()
        self._raise_error()

    def abandon(self) -> None:
        """End the thread without consuming what waits. Whatever blocks `consume` must have been ended before."""
        self._abandoned = True
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is None and not self._abandoned:
                try:
                    self._consume(item)
                except BaseException as error:  # noqa: BLE001 - raised by the next call in the other thread
                    self._error = error
            del item
