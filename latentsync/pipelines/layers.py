"""Lines: new words for one person in a part of a video; layers of lines that do not overlap in time, worked on one after the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.faces.compositing import FaceMatte
from latentsync.faces.plan import FacePlan, SkippedRun
from latentsync.media.audio import Samples
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.timeline import Piece, SpokenLine
from latentsync.sync_meter import SUMS_SHAPE, LineSync


@dataclass(frozen=True)
class Line:
    """New words in frames start..stop (half open; None: to the end), with a sound that is open."""

    audio_path: Path
    samples: Samples  # at AUDIO_SAMPLE_RATE; sample 0 sounds with frame `start`
    options: LipsyncOptions  # those of `LINE_OPTIONS` count
    start: int = 0
    stop: int | None = None
    number: int = 1  # in its script
    name: str = ""  # what a sentence calls it: "line 3"; none where it is the only one
    is_script: bool = True  # it has a place of its own in a video; its report says how lips and sound fit

    def within(self, skipped: Iterable[SkippedRun]) -> list[SkippedRun]:
        """What of skipped runs lies in the line."""
        cut = (SkippedRun(max(run.start, self.start), min(run.stop, self.stop or run.stop), run.reason) for run in skipped)
        return [run for run in cut if run.start < run.stop]


def in_layers(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines in order of time as few lists in which none overlaps another."""
    layers: list[list[Line]] = []
    for line in lines:
        free = next((layer for layer in layers if layer[-1].stop is not None and layer[-1].stop <= line.start), None)
        if free is None:
            layers.append([line])
        else:
            free.append(line)
    return layers


class Layer:
    """Lines that do not overlap, the plan of their faces, and what passes on from clip to clip: noise, matte, how lips and sound fit."""

    def __init__(
        self,
        lines: Sequence[Line],
        plan: FacePlan,
        cut: Sequence[Piece],
        matte: FaceMatte,
        open_voice: Callable[[Line], SpokenLine],
        open_sync: Callable[[Samples, Tensor], LineSync] | None = None,
    ) -> None:
        self.lines, self.plan, self.cut, self.matte, self._open_voice, self._open_sync = lines, plan, cut, matte, open_voice, open_sync
        self.sync_sums = torch.zeros(len(lines), *SUMS_SHAPE, dtype=torch.float64)  # of `LineSync`
        self._current: tuple[int, SpokenLine] | None = None
        self._sync: tuple[int, LineSync] | None = None

    @property
    def is_measured(self) -> bool:
        """Whether `sync_sums` are of all frames so far."""
        return self._open_sync is not None

    def voice(self, index: int) -> SpokenLine:
        """That of a line, opened when it is first asked for; lines come in order of time."""
        if self._current is None or self._current[0] != index:
            self._current = index, self._open_voice(self.lines[index])
        return self._current[1]

    def sync(self, index: int) -> LineSync | None:
        """How the lips of a line fit its sound, for the clips of `voice`; None where nothing measures it."""
        if self._open_sync is not None and (self._sync is None or self._sync[0] != index):
            self._sync = index, self._open_sync(self.lines[index].samples, self.sync_sums[index])
        return None if self._sync is None else self._sync[1]

    def state(self) -> dict[str, Tensor]:
        """What the clips after this moment depend on, for `restore`."""
        found = {"sums": self.sync_sums.clone()} if self.is_measured else {}
        if self._sync is not None:
            measured, sync = self._sync
            found |= {"measured": torch.tensor(measured), "held": sync.held, "next": torch.tensor(sync.next)}
        if self._current is not None:
            index, voice = self._current
            found |= {"line": torch.tensor(index), "random": voice.random.get_state(), **self.matte.state()}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state, in a fresh layer."""
        if "line" in state:
            self.voice(int(state["line"])).random.set_state(state["random"])
            self.matte.restore(state)
        if "sums" not in state:  # parts of the result were made apart from each other, and were not measured
            self._open_sync = None
            return
        self.sync_sums.copy_(state["sums"])
        if "measured" in state:
            sync = self.sync(int(state["measured"]))
            sync.held, sync.next = state["held"], int(state["next"])


def packed(states: Sequence[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """The states of all layers under one name each."""
    return {f"{number}-{name}": value.numpy() for number, state in enumerate(states) for name, value in state.items()}


def unpacked(arrays: Mapping[str, np.ndarray], count: int) -> list[dict[str, Tensor]]:
    """The opposite of `packed`, for so many layers."""
    parts = [(*name.split("-"), torch.from_numpy(np.asarray(array))) for name, array in arrays.items()]
    return [{name: value for number, name, value in parts if int(number) == layer} for layer in range(count)]
