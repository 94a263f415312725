"""Checkpoints, exact resume, and the configuration kept beside them."""

import contextlib
import json
import logging
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError

from latentsync.config import TrainingConfig, dump_config
from latentsync.errors import ConfigError, LatentSyncError, OutputError, first_line
from latentsync.media.files import STAGING_PREFIX, staged, write_json
from latentsync.published_config import OLD_KEYS, leaves
from latentsync.weights import is_whole_archive

logger = logging.getLogger(__name__)

KILLED = (
    "A process that reads clips was ended from outside (most often memory ran out): lower data.num_workers and run the same command again; "
    "it goes on from the last checkpoint."
)
CONFIG_FILE = "config.yaml"
FIXED = ("data.num_frames", "data.latent_space", "data.lower_half", "run.trainable_modules", "optimizer.name")
PRESENT = ("run.loss_weights.mouth",)  # may change, but not from or to 0: a part of the network hangs on it
RESUMABLE = 2  # states kept to go on from: the newest, and the one before in case that one is damaged
_POSITION = "position.json"
_WRITE_FAILED = (OSError, RuntimeError, SafetensorError)  # torch and safetensors have messages of their own for a full disk
_READ_FAILED = (*_WRITE_FAILED, ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Position:
    """Where a training stands."""

    step: int = 0  # steps of the optimizer
    samples: int = 0  # samples seen by all processes together


class CheckpointStore:
    """The checkpoints of one output folder; of published weights the newest `keep_last` stay."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder, self.keep_last = folder, keep_last

    def states(self) -> list[Path]:
        """Folders to go on from, oldest first; each is whole."""
        return sorted(path for path in (self.folder / "resume").glob("step-*") if re.fullmatch(r"step-\d+", path.name))

    def save(self, accelerator: Accelerator, position: Position, published: Mapping[str, Any]) -> None:
        """Write both, on all processes, before what was there is removed. Raises OutputError on every process; nothing is half there."""
        state = self.folder / "resume" / f"step-{position.step:08d}"
        unfinished = state.with_name(f"{STAGING_PREFIX}{state.name}")
        if accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a save that was interrupted
        accelerator.wait_for_everyone()
        with self._agreed(accelerator, unfinished):
            accelerator.save_state(str(unfinished), safe_serialization=True)
            if accelerator.is_main_process:
                write_json(unfinished / _POSITION, asdict(position))
                self._write(position.step, published)
        with self._agreed(accelerator, unfinished):
            if accelerator.is_main_process:
                if state.exists():  # the same step again
                    shutil.rmtree(state)
                unfinished.rename(state)
                self._prune()

    def save_again(self, accelerator: Accelerator, step: int, published: Mapping[str, Any]) -> None:
        """Write the published file of a step anew; called by all processes. Raises OutputError; the file before is whole then."""
        with self._agreed(accelerator):
            if accelerator.is_main_process:
                self._write(step, published)

    def _write(self, step: int, published: Mapping[str, Any]) -> None:
        with staged(self.folder / "checkpoints" / f"checkpoint-{step:08d}.pt") as temporary:
            torch.save(dict(published), temporary)

    def load(self, accelerator: Accelerator) -> Position:
        """Go on from the newest state that can be read, else from the start. Raises LatentSyncError where there are states and none can."""
        states = broadcast_object_list([self.states()])[0]
        for state in reversed(states):
            position, problem = _load(accelerator, state)
            problems = [text for text in gather_object([problem]) if text]
            if not problems:
                return position
            if accelerator.is_main_process:
                logger.warning("%s cannot be read (%s); trying the one before", state, problems[0])
        if states:
            raise LatentSyncError(
                f"{self.folder / 'resume'} holds {len(states)} saved states and none can be read: move that folder away and start from the "
                "newest file in checkpoints/ with ckpt.resume_ckpt_path."
            )
        return Position()

    @contextlib.contextmanager
    def _agreed(self, accelerator: Accelerator, unfinished: Path | None = None) -> Iterator[None]:
        """Raise on all processes what went wrong in this block on one; `unfinished` is removed then."""
        problem = None
        try:
            yield
        except (*_WRITE_FAILED, OutputError) as error:
            if isinstance(error, torch.OutOfMemoryError) or loader_was_killed(error):
                raise
            problem = str(getattr(error, "strerror", None) or error)
        reason = next((text for text in gather_object([problem]) if text), None)
        if reason is None:
            return
        if accelerator.is_main_process and unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise OutputError(
            f"The checkpoint could not be written into {self.folder} ({first_line(reason)}): free some space and run the same command "
            "again; it goes on from the checkpoint before."
        )

    def _prune(self) -> None:
        for state in self.states()[:-RESUMABLE]:
            shutil.rmtree(state)
        for unfinished in (self.folder / "resume").glob(f"{STAGING_PREFIX}*"):  # of a process that was killed: the folder is locked
            shutil.rmtree(unfinished, ignore_errors=True)
        for file in sorted((self.folder / "checkpoints").glob("checkpoint-*.pt"))[: -self.keep_last]:
            file.unlink()


def _load(accelerator: Accelerator, state: Path) -> tuple[Position, str | None]:
    """Read one state into everything; where it leads to, and on one line why that did not work."""
    try:
        position = Position(**json.loads((state / _POSITION).read_text(encoding="utf-8")))
        random_states = sorted(state.glob("random_states_*.pkl"))
        broken = [file.name for file in random_states if not is_whole_archive(file)]  # accelerate would pass over them
        if broken:
            return Position(), f"{broken[0]} is damaged"
        if len(random_states) != accelerator.num_processes and accelerator.is_main_process:
            logger.warning(
                "Saved by %d processes, %d go on: what is random in a network will differ", len(random_states), accelerator.num_processes
            )
        accelerator.load_state(str(state))
    except torch.OutOfMemoryError:
        raise
    except _READ_FAILED as error:
        return Position(), first_line(error)
    return position, None


def check_config(config: TrainingConfig, folder: Path) -> None:
    """Log what has changed since a training began in this folder. Raises ConfigError where that trains another network."""
    path = folder / CONFIG_FILE
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    if not isinstance(before, dict) or not (folder / "resume").is_dir():
        return
    old, new = {OLD_KEYS.get(key, key): value for key, value in leaves(before)}, dict(leaves(yaml.safe_load(dump_config(config))))
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    appeared = [key for key in PRESENT if bool(old.get(key)) != bool(new.get(key))]
    broken = [key for key in changed if key.startswith("model.") or key in FIXED or key in appeared]
    if broken:
        raise ConfigError(
            f"{folder} holds a training with another {broken[0]}, which cannot go on with this one: set another data.train_output_dir."
        )
    if changed:
        logger.info("Changed since the last start: %s", ", ".join(changed))


def loader_was_killed(error: BaseException) -> bool:
    """Whether this is torch's word for a loading process that ended unexpectedly; it comes up in whatever runs at that moment."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
