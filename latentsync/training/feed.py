"""Batches for the loop, from any place in the sequence on, with what goes wrong in a loading process told in one sentence."""

import logging
import time
from collections.abc import Iterable, Iterator

from latentsync.data.batches import Batch
from latentsync.data.loader import TurnSampler, make_loader
from latentsync.errors import LatentSyncError
from latentsync.training.parts import Parts

logger = logging.getLogger(__name__)

STARVED = 0.3  # share of the time spent waiting for data above which the user is told
STARVED_BATCHES = 50  # ... over so many batches, twice in a row: the first passes fill the caches


KILLED = (
    "A process that reads clips was ended from outside (most often memory ran out): lower data.num_workers and run the same command again; "
    "it goes on from the last checkpoint."
)


def loader_was_killed(error: BaseException) -> bool:
    """Whether this is torch's word for a loading process that ended unexpectedly; it comes up in whatever runs at that moment."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


class Problems:
    """Clips that could not be read, each told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, problems: Iterable[str]) -> None:
        """Warn of those that are new."""
        for problem in problems:
            if problem not in self._told:
                self._told.add(problem)
                logger.warning("%s", problem)


class Feed:
    """The endless sequence of one process's batches.

    Args:
        samples: samples that all processes together have seen already.
        pin_memory: keep batches where a GPU copies them from while it computes.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        seed: int,
        batch_size: int,
        num_workers: int,
        rank: int,
        world: int,
        samples: int,
        pin_memory: bool = False,
    ) -> None:
        start = -(-samples // (batch_size * world))  # batches; another number of processes than before may skip a few samples
        sampler = TurnSampler(parts.num_clips, seed=seed, batch_size=batch_size, rank=rank, world=world, start=start)
        self._batches: Iterator[Batch] = iter(make_loader(parts.dataset, sampler, num_workers, pin_memory))
        self._problems = Problems()
        self._count, self._starved = 0, 0  # batches; stretches of STARVED_BATCHES in a row that waited too long
        self._told_of_waiting = False
        self._mark = (time.monotonic(), 0.0)  # when the present stretch began, and how long had been waited by then
        self.waited = 0.0  # seconds

    def next(self) -> Batch:
        """The next batch.

        Raises:
            LatentSyncError: no clip can be read any more.
            RuntimeError: a loading process was ended, see `loader_was_killed`; this one may come up anywhere else, too.
        """
        before = time.monotonic()
        try:
            batch = next(self._batches)
        except LatentSyncError as error:
            raise type(error)(sentence(error)) from error
        self.waited += time.monotonic() - before if self._count else 0.0  # the first batch waits for the processes to start
        self._count += 1
        self._tell(batch)
        return batch

    def _tell(self, batch: Batch) -> None:
        self._problems.tell(batch.problems)
        if self._count % STARVED_BATCHES == 0:
            self._look_back()

    def _look_back(self) -> None:
        """Say once that training waits for data, when it did so over two stretches in a row."""
        now, (begin, waited) = time.monotonic(), self._mark
        share = (self.waited - waited) / max(now - begin, 1e-9)
        self._mark = (now, self.waited)
        self._starved = self._starved + 1 if share > STARVED else 0
        if self._starved == 2 and not self._told_of_waiting:
            self._told_of_waiting = True
            logger.warning(
                "The training waits for data %.0f %% of the time: raise data.num_workers, or put data.cache_dir on a faster disk.",
                100 * share,
            )


def sentence(error: LatentSyncError) -> str:
    """What an error says that a loading process raised: the last line of the trace that it comes wrapped in."""
    text = str(error).strip()
    if "\n" not in text:
        return text
    last = text.splitlines()[-1]
    return last.partition(": ")[2] or last
