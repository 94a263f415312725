"""One case past all measures at once: each frame is decoded once, and a measure that fails leaves the others alone."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from eval.measures.measure import Case, Chunk, FeatureTally, Measure, Numbers, SetMeasure, Tally
from eval.runs.looking import Looker, truth_chunk
from latentsync.errors import LatentSyncError, reason_of

logger = logging.getLogger(__name__)

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Reading(Generic[_Found]):
    """What a measure found of a case, and of the source in its place.

    Attributes:
        made, truth: None where `failed` or `truth_failed` says why there is nothing.
        sure: whether another try would find the same.
    """

    made: _Found | None
    truth: _Found | None
    failed: str | None = None
    truth_failed: str | None = None
    sure: bool = True


class CaseReadings(NamedTuple):
    """All that was found of one case, by measure."""

    numbers: dict[str, Reading[Numbers]]
    features: dict[str, Reading[np.ndarray]]


class GuardedTally(Generic[_Found]):
    """A tally that is dropped at its first failure, with the reason."""

    def __init__(self, begin: Callable[[], Any]) -> None:
        self.failed: str | None = None
        self.sure = True
        self._tally: Tally | FeatureTally | None = self._attempt(begin)

    def add(self, chunk: Chunk) -> None:
        """The next frames, if it still counts."""
        if self._tally is not None:
            self._attempt(lambda: self._tally.add(chunk))

    def finish(self) -> _Found | None:
        """What was found; None where it failed."""
        return None if self._tally is None else self._attempt(self._tally.finish)

    def _attempt(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self._tally, self.failed, self.sure = None, reason_of(error), isinstance(error, LatentSyncError)
            logger.debug("Where it happened:", exc_info=error)
            return None


class _Both(Generic[_Found]):
    """A measure at work on the video and on its source."""

    def __init__(self, measure: Measure | SetMeasure, case: Case) -> None:
        self.made: GuardedTally[_Found] = GuardedTally(lambda: measure.open(case))
        self.truth: GuardedTally[_Found] = GuardedTally(lambda: measure.open(case.truth()))

    def reading(self) -> Reading[_Found]:
        made, truth = self.made.finish(), self.truth.finish()
        return Reading(made, truth, self.made.failed, self.truth.failed, self.made.sure and self.truth.sure)


def measure_case(case: Case, looker: Looker, measures: Sequence[Measure], sets: Sequence[SetMeasure]) -> CaseReadings:
    """Measure one case by everything. Raises InputError where its videos cannot be looked at; see `Looker.chunks`."""
    numbers: dict[str, _Both[Numbers]] = {measure.name: _Both(measure, case) for measure in measures}
    features: dict[str, _Both[np.ndarray]] = {measure.name: _Both(measure, case) for measure in sets}
    for chunk in looker.chunks(case):
        real = truth_chunk(chunk)
        for both in (*numbers.values(), *features.values()):
            both.made.add(chunk)
            both.truth.add(real)
    return CaseReadings({name: both.reading() for name, both in numbers.items()}, {name: both.reading() for name, both in features.items()})
