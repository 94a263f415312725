"""The training loop that SyncNet and U-Net share."""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import gather_object, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

import latentsync
from latentsync.config import CkptConfig, Config, OptimizerConfig, RunConfig, TrainingDataConfig
from latentsync.data.clip_index import Catalog, open_catalog
from latentsync.data.sampling import Batch, IndexSampler, make_loader
from latentsync.errors import ConfigError, InputError, LatentSyncError, OutOfMemoryError, first_line
from latentsync.training.checkpoint import KILLED, CheckpointStore, Position, loader_was_killed
from latentsync.training.logging import TRAINING, VALIDATION, History, RunningMeans, draw_chart
from latentsync.training.statistics import wilson
from latentsync.weights import CHECKPOINTS, WHISPER_BY_WIDTH, weights_path

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """While this context lasts, a polite kill, Ctrl-C and a closed terminal set `asked`; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "StopSignals":
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


Losses = dict[str, Tensor]  # loss -> its mean over the batch, a scalar
Publish = Callable[[Mapping[str, Tensor], int, History], dict[str, Any]]  # weights, step, history -> what the published file holds


class TrainingStep(Protocol):
    """One batch to its losses. Everything random in it comes from the batch's positions, or from torch's global generator."""

    def __call__(self, model: nn.Module, batch: Any) -> Losses: ...


class ValidationSum(NamedTuple):
    """A sum over this process's share of a validation, and over how many it was taken."""

    total: float
    count: float
    is_share: bool = False  # the sum counts those of which something is true: it gets a confidence interval


class Validator(Protocol):
    """Looks at the network between two steps. Called on every process, with the network in evaluation mode and without gradients."""

    name: str

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]: ...


class Watch(Protocol):
    """Is told the losses of every step; returns a sentence when there is something the user should know."""

    def __call__(self, step: int, losses: Mapping[str, float]) -> str | None: ...


@dataclass(frozen=True)
class TrainingTask:
    """What is trained, and on what."""

    model: nn.Module  # parameters that shall not be trained have requires_grad off
    step: TrainingStep
    dataset: "Dataset[Batch]"  # of `Turn`s
    num_clips: int
    publish: Publish
    clip_name: Callable[[int], str]  # index of a clip -> what to call it in a message
    validators: Sequence[Validator] = ()
    watches: Sequence[Watch] = field(default_factory=tuple)
    prepare: Callable[[], None] = lambda: None  # what takes long and is needed before the first step; called on every process
    publishes_curves: bool = False  # the published file holds loss curves, and so is written anew after a validation


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration (AdamW, arXiv 1711.05101, betas 0.9 and 0.999).

    Raises InputError for 8 bits where the package bitsandbytes, or a CUDA device, is missing.
    """
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit  # optional: large, and of use with CUDA alone
    except ImportError:
        raise InputError("optimizer.name adamw_8bit needs the package bitsandbytes: pip install bitsandbytes, or set adamw.") from None
    if not torch.cuda.is_available():
        raise InputError("optimizer.name adamw_8bit needs a CUDA device: set optimizer.name=adamw.")
    return AdamW8bit(parameters, **settings)


class EMA:
    """Exponential moving average of parameters; does nothing at decay 0. Saved and restored with the rest of a training."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self._ema = EMAModel(self.parameters, decay=decay) if decay else None

    def __bool__(self) -> bool:
        return self._ema is not None

    def update(self) -> None:
        """Take a step of the optimizer into account."""
        if self._ema is not None:
            self._ema.step(self.parameters)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While this context lasts, the parameters hold the average."""
        if self._ema is None:
            yield
            return
        self._ema.store(self.parameters)
        self._ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self._ema.restore(self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {} if self._ema is None else self._ema.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint; where that has no average, it begins anew with the weights, which are loaded before."""
        if self._ema is None:
            return
        if state:
            self._ema.load_state_dict(state)
            self._ema.to(self.parameters[0].device)
            self._ema.decay = self.decay  # as configured, whatever it was before
        else:
            self._ema = EMAModel(self.parameters, decay=self.decay)


def run_validators(validators: Sequence[Validator], model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
    """What all validators measured over all processes; called on every process. Shares come with the ends of their 95 % interval as
    "name:low" and "name:high". The random state of the training is left as it was."""
    training = model.training
    model.eval()
    values: dict[str, float] = {}
    devices = [accelerator.device.index or 0] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), accelerator.autocast():
            for validator in validators:
                values |= combined(gather_object([_measured(validator, model, step)]))
    finally:
        model.train(training)
    return values


def _measured(validator: Validator, model: nn.Module, step: int) -> dict[str, ValidationSum] | None:
    """This process's share; None where it failed."""
    try:
        return validator(model, step)
    except Exception as error:  # whatever a validation meets is reported and never ends the training
        logger.error(
            "The validation '%s' of step %d failed and is left out; the training goes on (%s)", validator.name, step, first_line(error)
        )
        logger.debug("Where it happened:", exc_info=error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def combined(shares: Sequence[dict[str, ValidationSum] | None]) -> dict[str, float]:
    """The means over the shares of all processes; nothing where one of them is missing."""
    if any(share is None for share in shares):
        return {}
    values: dict[str, float] = {}
    for name in dict.fromkeys(name for share in shares for name in share):
        tallies = [share[name] for share in shares if name in share]
        total, count = sum(tally.total for tally in tallies), sum(tally.count for tally in tallies)
        if not count:
            continue
        values[name] = total / count
        if tallies[0].is_share:
            values[f"{name}:low"], values[f"{name}:high"] = wilson(total / count, count)
    return values


STARVED = 0.3  # share of the time spent waiting for data above which the user is told
STARVED_BATCHES = 50  # ... over so many batches, twice in a row: the first passes fill the caches


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


class BatchLoader:
    """The endless sequence of one process's batches.

    Args:
        samples: samples that all processes together have seen already.
        pin_memory: keep batches where a GPU copies them from while it computes.
    """

    def __init__(
        self,
        parts: TrainingTask,
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
        sampler = IndexSampler(parts.num_clips, seed=seed, batch_size=batch_size, rank=rank, world=world, start=start)
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


ROOT = Path(latentsync.__file__).resolve().parents[1]
PATIENCE = timedelta(hours=2)  # processes wait for each other so long: one of them may be filling a cache
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_accelerator(run: RunConfig, device: str = "auto") -> Accelerator:
    """The processes and devices of a training, as `accelerate launch` made them, or this process alone.

    Args:
        device: "cpu" keeps everything off a GPU that is there.

    Raises:
        ConfigError: the device cannot compute in the precision that was asked for.
    """
    cpu = device == "cpu"
    cuda = torch.cuda.is_available() and not cpu
    precision = run.mixed_precision
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "no"
    if precision == "fp16" and not cuda:
        raise ConfigError("run.mixed_precision fp16 needs a CUDA device: set run.mixed_precision=auto.")
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
        cpu=cpu,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE), DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def half_precision(accelerator: Accelerator) -> torch.dtype:
    """What networks that are not trained compute in."""
    return HALF.get(accelerator.mixed_precision, torch.float32)


def seed_everything(run: RunConfig, accelerator: Accelerator) -> None:
    """Different chance on every process, the same at every start."""
    set_seed(run.seed + accelerator.process_index)


def output_folder(data: TrainingDataConfig) -> Path:
    """Where a training writes.

    Raises ConfigError where the configuration does not say.
    """
    if data.train_output_dir is None:
        raise ConfigError("data.train_output_dir is not set: name the folder for checkpoints, logs and charts.")
    return data.train_output_dir


def start_weights(ckpt: CkptConfig, data: TrainingDataConfig) -> Path | None:
    """The file that a new training starts from; None where there is none, or where a training goes on and needs it no more."""
    return None if CheckpointStore(output_folder(data), ckpt.keep_last).states() else ckpt.resume_ckpt_path


def cache_folder(data: TrainingDataConfig) -> Path:
    """Where things are kept that are computed once for each clip."""
    return data.cache_dir or output_folder(data) / "cache"


def open_catalogs(
    data: TrainingDataConfig, min_frames: int, accelerator: Accelerator, show_progress: bool, resolution: int = 0
) -> tuple[Catalog, Catalog | None]:
    """The clips to train on, and the held-out ones where there are any. The main process looks first, the others read its notes.

    Warns of clips that have fewer than `resolution` pixels a side.

    Raises:
        ConfigError: no clips are named.
        InputError: none of those named can be used, or a clip stands on both sides.
    """
    if data.train_data_dir is None and data.train_fileslist is None:
        raise ConfigError("No clips to train on are named: set data.train_data_dir to a folder of clips, or data.train_fileslist.")
    look = partial(open_catalog, min_frames=min_frames, cache_dir=cache_folder(data), show_progress=show_progress)
    with accelerator.main_process_first():
        train = look(data.train_data_dir, data.train_fileslist)
        _tell_of_small_clips("training", train, resolution)
        if data.val_data_dir is None and data.val_fileslist is None:
            logger.warning("No held-out clips are named (data.val_data_dir): nothing will show whether what is learnt holds for others.")
            return train, None
        held_out = look(data.val_data_dir, data.val_fileslist)
        _tell_of_small_clips("held-out", held_out, resolution)
    common = {clip.path for clip in train.clips} & {clip.path for clip in held_out.clips}
    if common:
        raise InputError(f"{len(common)} clips, such as {min(common)}, are both trained on and held out: take them out of one of the two.")
    return train, held_out


def _tell_of_small_clips(name: str, catalog: Catalog, resolution: int) -> None:
    sides = [clip.side for clip in catalog.clips if clip.side < resolution]
    if sides:
        logger.warning(
            "%d of %d %s clips are smaller than data.resolution %d, the smallest %d pixels a side, and are blown up: "
            "lower data.resolution, or leave them out.",
            *(len(sides), len(catalog.clips), name, resolution, min(sides)),
        )


def freeze(model: nn.Module, trainable: Sequence[str]) -> int:
    """Train only parameters whose name contains one of `trainable` (all, where it is empty); how many numbers that are.

    Raises ConfigError where a part names nothing.
    """
    for part in trainable:
        if not any(part in name for name, _ in model.named_parameters()):
            raise ConfigError(f"run.trainable_modules holds '{part}', which is in no parameter's name: see the names in the checkpoint.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not trainable or any(part in name for part in trainable))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def default_weights(name: str) -> Path:
    """Where a file of the weights table is, or where it belongs."""
    return weights_path(name, ROOT / CHECKPOINTS)


def whisper_weights(config: Config) -> Path:
    """The audio encoder's file or folder. Raises ConfigError where it is missing or none is known for the width of the audio tokens."""
    width = config.model.cross_attention_dim
    if config.weights.whisper is None and width not in WHISPER_BY_WIDTH:
        raise ConfigError(f"No published audio encoder is {width} wide (model.cross_attention_dim): name your own with weights.whisper.")
    path = config.weights.whisper or default_weights(WHISPER_BY_WIDTH[width])
    if not path.exists():
        raise ConfigError(f"The audio encoder {path} is missing: run `python -m scripts.download_weights`, or set weights.whisper.")
    return path


def clip_namer(catalog: Catalog) -> Callable[[int], str]:
    """Index of a clip -> its path, for messages."""
    return lambda index: str(catalog.clips[index].path)


LOST_STEPS = 20  # steps without a number, one after another, that loss scaling may take to find its scale
LEAST_SCALE = 1.0  # each step without a number halves the scale of the loss; below this gradients in half precision become zeros
CHART = "loss_chart.png"


class Trainer:
    """A training in one output folder, on all processes of `accelerator`.

    Args:
        batch_size: samples in one pass of one process.
        num_workers: loading processes of each training process.

    Attributes:
        position: where it stands.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        parts: TrainingTask,
        run: RunConfig,
        optimizer: OptimizerConfig,
        ckpt: CkptConfig,
        *,
        folder: Path,
        batch_size: int,
        num_workers: int,
        show_progress: bool = True,
    ) -> None:
        self.accelerator, self.parts, self.run = accelerator, parts, run
        self.batch_size, self.num_workers, self.folder = batch_size, num_workers, folder
        self.show_progress = show_progress and accelerator.is_main_process
        self.settings, self.save_steps = optimizer, ckpt.save_ckpt_steps
        self.store = CheckpointStore(folder, ckpt.keep_last)
        self.position = Position()
        self.history: History | None = None  # of the main process
        self._log, self._lost = RunningMeans(), 0
        self._saved: int | None = None  # step of the last checkpoint of this run
        self._prepare(optimizer)

    def _prepare(self, config: OptimizerConfig) -> None:
        """Place network and optimizer, and say what belongs into a checkpoint."""
        accelerator, model = self.accelerator, self.parts.model
        if accelerator.state.deepspeed_plugin is not None:
            accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = self.batch_size
        optimizer = make_optimizer([parameter for parameter in model.parameters() if parameter.requires_grad], config)
        schedule = get_scheduler(
            config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=self.run.max_train_steps
        )
        self.model, self.optimizer, self.schedule = accelerator.prepare(model, optimizer, schedule)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.average = EMA(self.trained, self.run.ema_decay)
        accelerator.register_for_checkpointing(self.average)

    def train(self) -> bool:
        """Train to the last step; False where it was asked to stop before. Either way everything is saved.

        Raises:
            OutputError: something could not be written; the last checkpoint is whole.
            LatentSyncError: a step failed.
        """
        self.parts.prepare()
        self.position = self.store.load(self.accelerator)
        if self.accelerator.is_main_process:
            self.history = History(self.folder, self.position.step)
        if self.position.step:
            self._say("Going on from step %d", self.position.step)
        self._take_settings()
        try:
            with StopSignals() as stop:
                self._validate_if_due()
                return self._steps(stop)
        except RuntimeError as error:
            if not loader_was_killed(error):
                raise
            raise LatentSyncError(KILLED) from error
        finally:
            if self.history is not None:
                self.history.close()

    def _take_settings(self) -> None:
        """What the configuration says wins over what a checkpoint remembers: learning rate, weight decay, passes a step."""
        schedule = getattr(self.schedule, "scheduler", self.schedule)
        schedule.base_lrs = [self.settings.lr] * len(schedule.base_lrs)
        for group, share in zip(self.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            rate = self.settings.lr * share(schedule.last_epoch)
            group.update(lr=rate, initial_lr=self.settings.lr, weight_decay=self.settings.weight_decay)
        self.accelerator.step = 0  # checkpoints lie between two steps, whatever number of passes they had

    def _steps(self, stop: StopSignals) -> bool:
        """All steps that are left; whether the last one was reached."""
        feed, stopped, total = None, False, self.run.max_train_steps
        with tqdm(total=total, initial=self.position.step, unit="step", disable=None if self.show_progress else True) as bar:
            while self.position.step < total and not stopped:
                feed = feed or self._feed()
                losses, stopped = self._step(feed, stop)
                bar.set_postfix({name: f"{loss:.4g}" for name, loss in losses.items()}, refresh=False)
                bar.update()
                if stopped or self.position.step % self.save_steps == 0 or self.position.step == total:
                    self._save()
                if not stopped:
                    self._validate_if_due()
        if stopped:
            self._say("Stopped and saved at step %d; the same command goes on from there", self._saved)
        return not stopped

    def _feed(self) -> BatchLoader:
        accelerator = self.accelerator
        return BatchLoader(
            self.parts,
            seed=self.run.seed,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            samples=self.position.samples,
            pin_memory=accelerator.device.type == "cuda",
        )

    def _step(self, feed: BatchLoader, stop: StopSignals) -> tuple[dict[str, float], bool]:
        """One step of the optimizer: the losses over all processes, and whether any of them was asked to stop."""
        start, waited, passes = time.monotonic(), feed.waited, self.run.gradient_accumulation_steps
        sums: dict[str, float] = {}
        clips: set[int] = set()
        for _ in range(passes):
            batch = feed.next()
            clips.update(batch.clip.tolist())
            losses, grad_norm = self._pass(batch)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach()) / passes
        vector = torch.tensor([*sums.values(), float(stop.asked)], device=self.accelerator.device)
        *means, stopped = self.accelerator.reduce(vector, reduction="mean").tolist()
        losses = dict(zip(sums, means, strict=True))
        self._check(losses, grad_norm, clips)
        seen = self.batch_size * self.accelerator.num_processes * passes
        self.position = Position(self.position.step + 1, self.position.samples + seen)
        seconds = time.monotonic() - start
        length = {} if grad_norm is None else {"grad_norm": grad_norm}
        self._record(losses, {**length, "seconds": seconds, "waiting": (feed.waited - waited) / max(seconds, 1e-9)})
        return losses, stopped > 0

    def _pass(self, batch: Batch) -> tuple[dict[str, Tensor], float | None]:
        """Forward and backward, and on the last pass of a step the weights move: the losses, and the length of the gradient then."""
        accelerator, grad_norm = self.accelerator, None
        self.model.train()
        try:
            with accelerator.accumulate(self.model):
                with accelerator.autocast():
                    losses = self.parts.step(self.model, batch.to(accelerator.device))
                accelerator.backward(sum(self.run.loss_weights[name] * loss for name, loss in losses.items()))
                if accelerator.sync_gradients:
                    grad_norm = self._clip()
                self.optimizer.step()
                if accelerator.sync_gradients and not accelerator.optimizer_step_was_skipped:
                    self.schedule.step()
                    self.average.update()
                self.optimizer.zero_grad(set_to_none=True)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"The device ran out of memory in step {self.position.step + 1} with {self.batch_size} sample(s) in a pass: lower "
                "data.batch_size and raise run.gradient_accumulation_steps; docs/training.md lists what else saves memory."
            ) from error
        return losses, grad_norm

    def _clip(self) -> float | None:
        """Shorten the gradient; its length before that. Where it is no number and no loss scaling would catch that, nothing is moved."""
        length = self.accelerator.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
        if length is None:  # an engine that clips by itself does not tell
            return None
        length = float(length)
        if not math.isfinite(length) and self.accelerator.scaler is None:
            for parameter in self.trained:
                parameter.grad = None
        return length

    def _check(self, losses: Mapping[str, float], grad_norm: float | None, clips: Iterable[int]) -> None:
        """Stop, on all processes alike, where a loss or the gradient is no number.

        With loss scaling such a step moves nothing, and the training stops after several in a row, or where so many of them came that the
        scale is too small for half precision.
        """
        bad = [name for name, loss in losses.items() if not math.isfinite(loss)]
        if not bad and grad_norm is not None and not math.isfinite(grad_norm):
            bad = ["the gradient"]
        self._lost = self._lost + 1 if bad else 0
        scaler = self.accelerator.scaler
        if bad and (scaler is None or self._lost > LOST_STEPS or scaler.get_scale() < LEAST_SCALE):
            names = ", ".join(sorted({self.parts.clip_name(clip) for clip in clips}))
            raise LatentSyncError(
                f"Step {self.position.step + 1}: {', '.join(bad)} is no finite number any more (process "
                f"{self.accelerator.process_index} saw {names}): lower optimizer.lr, or look at these clips; the same command goes on from "
                "the last checkpoint."
            )

    def _record(self, losses: dict[str, float], others: dict[str, float]) -> None:
        """Put a step into the log; the user is told what a watch has to say."""
        if self.history is None:
            return
        weighted = {"total": sum(self.run.loss_weights[name] * loss for name, loss in losses.items())} if len(losses) > 1 else {}
        self._log.add(losses | weighted | others | {"lr": self.schedule.get_last_lr()[0]})
        if self.position.step % self.run.log_steps == 0 or self.position.step == 1:
            self._flush()
        for watch in self.parts.watches:
            if advice := watch(self.position.step, losses):
                logger.warning("%s", advice)

    def _flush(self) -> None:
        if self.history is not None and self._log:
            self.history.add(self.position.step, TRAINING, self._log.take())

    def _save(self) -> None:
        """Write a checkpoint; called on all processes."""
        self._flush()
        self.store.save(self.accelerator, self.position, self._published())
        self._saved = self.position.step
        self._draw()

    def _published(self) -> dict[str, Any]:
        """What the published file holds; called on all processes, which together may hold the weights."""
        with self.average.in_place():
            weights = self.accelerator.get_state_dict(self.model)
            if self.average and self.accelerator.is_main_process:
                weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        return {} if self.history is None else self.parts.publish(weights, self.position.step, self.history)

    def _validate_if_due(self) -> None:
        """Validate before the first step, every so often, and at the end, unless that has been done before."""
        step = self.position.step
        if not self.parts.validators or (step % self.run.validation_steps and step < self.run.max_train_steps):
            return
        if gather_object([self.history is not None and self.history.was_validated(step)])[0]:
            return
        model = self.accelerator.unwrap_model(self.model)
        with self.average.in_place():
            values = run_validators(self.parts.validators, model, step, self.accelerator)
        if self.history is not None:
            self.history.add(step, VALIDATION, values)
        if values:
            self._say("Step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if self.parts.publishes_curves and step == self._saved:  # saved first, so that nothing is lost should validation end it all
            self.store.save_again(self.accelerator, step, self._published())
        self._draw()

    def _draw(self) -> None:
        if self.history is None:
            return
        try:
            draw_chart(self.history.points(), self.folder / CHART)
        except OSError as error:  # a picture is not worth a training
            logger.warning("%s cannot be drawn: %s", self.folder / CHART, error.strerror)

    def _say(self, message: str, *values: object) -> None:
        if self.accelerator.is_main_process:
            logger.info(message, *values)
