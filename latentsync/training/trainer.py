"""The training loop of SyncNet and the U-Net, its parts, what builders share; the same command goes on, to the same losses and weights."""

import argparse
import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import gather_object, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import latentsync
from latentsync.config import CkptConfig, OptimizerConfig, RunConfig, TrainingConfig, TrainingDataConfig, dump_config
from latentsync.data.clip_index import Catalog, open_catalog
from latentsync.data.sampling import Batch, ClipDataset, IndexSampler, fixed_batches, make_loader
from latentsync.diffusion import is_fast_at_bfloat16
from latentsync.errors import ConfigError, InputError, LatentSyncError, OutOfMemoryError, first_line
from latentsync.media.files import folder_lock, write_text
from latentsync.models.vae import LatentCodec, load_vae
from latentsync.training.checkpoint import CONFIG_FILE, KILLED, CheckpointStore, Position, check_config, loader_was_killed
from latentsync.training.logging import TRAINING, VALIDATION, History, draw_chart
from latentsync.weights import CHECKPOINTS, weights_path

logger = logging.getLogger(__name__)

CHART, LOCK_FILE = "loss_chart.png", ".training-lock"
MAX_LOST_STEPS = 20  # steps without a finite loss, one after another, that loss scaling may take to find its scale
MIN_SCALE = 1.0  # each step without a finite loss halves the scale of the loss; below this gradients in half precision become zeros
STARVED = 0.3  # share of the time spent waiting for data above which the user is told ...
STARVED_STEPS = 100  # ... averaged over about so many steps, and not before: the first passes fill the caches
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ROOT = Path(latentsync.__file__).resolve().parents[1]
PROCESS_TIMEOUT = timedelta(hours=2)  # processes wait for each other so long: one of them may be filling a cache
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
VAE_SLICE = 64  # faces that go through the autoencoder at once

Losses = dict[str, Tensor]  # loss -> its mean over the batch, a scalar
# Network, batch -> losses. Everything random in it comes from the batch's positions, or from torch's global generator.
TrainingStep = Callable[[nn.Module, Any], Losses]
Publish = Callable[[Mapping[str, Tensor], int, History], dict[str, Any]]  # weights, step, history -> what the published file holds


def train(config: TrainingConfig, build: "Callable[[Any, Accelerator, bool], TrainingTask]", options: argparse.Namespace) -> bool:
    """Build (its last argument: show progress) and train in the output folder; False: stopped before the end. Raises LatentSyncError."""
    accelerator, folder = make_accelerator(config.run, options.device), output_folder(config.data)
    is_main = accelerator.is_main_process
    if not is_main:
        logging.getLogger("latentsync").setLevel(logging.ERROR)
        for name in ("latentsync.training.trainer", "latentsync.data.features"):  # clips that only this process reads
            logging.getLogger(name).setLevel(logging.WARNING)
    in_use = "is in use by another training: wait for it, or set another data.train_output_dir"
    with folder_lock(folder, LOCK_FILE, in_use) if is_main else contextlib.nullcontext():
        if is_main:
            check_config(config, folder)
        task = build(config, accelerator, not options.quiet)
        if is_main:
            write_text(folder / CONFIG_FILE, dump_config(config))
        trainer = Trainer(accelerator, task, config, show_progress=not options.quiet)
        if options.dry_run:
            logger.info("Everything is there; %d steps would be trained", config.run.max_train_steps)
            return True
        return trainer.train()


class ValidationSum(NamedTuple):
    """A sum over this process's share of a validation, and over how many it was taken."""

    total: float
    count: float
    is_share: bool = False  # the sum counts those of which something is true: it gets a confidence interval


class Validator(Protocol):
    """Measures the network between two steps. Called on every process, with the network in evaluation mode and without gradients."""

    name: str

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]: ...


@dataclass(frozen=True)
class TrainingTask:
    """What is trained, and on what."""

    model: nn.Module  # parameters that shall not be trained have requires_grad off
    step: TrainingStep
    dataset: "ClipDataset[Any]"
    publish: Publish
    validators: Sequence[Validator] = ()
    watch: Callable[[int, Mapping[str, float]], str | None] | None = None  # step, its losses -> advice for the user, if there is any
    prepare: Callable[[], None] = lambda: None  # what takes long and is needed before the first step; called on every process
    publishes_curves: bool = False  # the published file holds loss curves, and so is written anew after a validation


class Trainer:
    """A training in the output folder of its configuration, on all processes of `accelerator`."""

    def __init__(self, accelerator: Accelerator, task: TrainingTask, config: TrainingConfig, show_progress: bool = True) -> None:
        run, optimizer, ckpt = config.run, config.optimizer, config.ckpt
        self.accelerator, self.task, self.config, self.run = accelerator, task, config, run
        self.folder, self.batch_size = output_folder(config.data), config.data.batch_size
        self.show_progress = show_progress and accelerator.is_main_process
        self.store = CheckpointStore(self.folder, ckpt.keep_last)
        self.position = Position()
        self.history: History | None = None
        self._recent: list[dict[str, float]] = []  # values of the steps since the last point of the history
        self._told, self._lost_steps, self._waiting = set[str](), 0, 0.0
        self._saved: int | None = None  # step of the last checkpoint of this run
        if accelerator.state.deepspeed_plugin is not None:
            accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = self.batch_size
        parameters = make_optimizer([parameter for parameter in task.model.parameters() if parameter.requires_grad], optimizer)
        schedule = get_scheduler(
            optimizer.lr_scheduler, parameters, num_warmup_steps=optimizer.lr_warmup_steps, num_training_steps=run.max_train_steps
        )
        self.model, self.optimizer, self.schedule = accelerator.prepare(task.model, parameters, schedule)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.ema = EMA(self.trained, run.ema_decay)
        accelerator.register_for_checkpointing(self.ema)

    def train(self) -> bool:
        """Train to the last step; False where it was asked to stop before. Either way everything is saved. Raises LatentSyncError."""
        total, stopped = self.run.max_train_steps, False
        self.task.prepare()
        self.position = self.store.load(self.accelerator)
        if self.position.step:
            logger.info("Going on from step %d", self.position.step)
        self._apply_settings()
        try:
            with contextlib.ExitStack() as stack:
                if self.accelerator.is_main_process:
                    self.history = stack.enter_context(contextlib.closing(History(self.folder, self.position.step)))
                received = stack.enter_context(stop_signals())
                self._validate_if_due()
                batches = iter(self._make_loader() if self.position.step < total else ())
                silent = None if self.show_progress else True
                bar = stack.enter_context(tqdm(total=total, initial=self.position.step, unit="step", disable=silent))
                while self.position.step < total and not stopped:
                    losses, stopped = self._step(batches, received)
                    bar.set_postfix({name: f"{loss:.4g}" for name, loss in losses.items()}, refresh=False)
                    bar.update()
                    if stopped or self.position.step % self.config.ckpt.save_ckpt_steps == 0 or self.position.step == total:
                        self._save()
                    if not stopped:
                        self._validate_if_due()
        except RuntimeError as error:
            if not loader_was_killed(error):
                raise
            raise LatentSyncError(KILLED) from error
        if stopped:
            logger.info("Stopped and saved at step %d; the same command goes on from there", self._saved)
        return not stopped

    def _apply_settings(self) -> None:
        """What the configuration says wins over what a checkpoint remembers: learning rate, weight decay, passes a step."""
        lr, weight_decay = self.config.optimizer.lr, self.config.optimizer.weight_decay
        schedule = getattr(self.schedule, "scheduler", self.schedule)
        schedule.base_lrs = [lr] * len(schedule.base_lrs)
        for group, share in zip(self.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group.update(lr=lr * share(schedule.last_epoch), initial_lr=lr, weight_decay=weight_decay)
        self.accelerator.step = 0  # checkpoints lie between two steps, whatever number of passes they had

    def _make_loader(self) -> "DataLoader[Batch]":
        """Batches from the samples on that no process has seen; another number of processes than before may skip a few."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        start = -(-self.position.samples // (self.batch_size * world))  # batches
        sampler = IndexSampler(len(self.task.dataset), seed=self.run.seed, batch_size=self.batch_size, rank=rank, world=world, start=start)
        return make_loader(self.task.dataset, sampler, self.config.data.num_workers, self.accelerator.device.type == "cuda")

    def _step(self, batches: Iterator[Batch], received: Sequence[int]) -> tuple[dict[str, float], bool]:
        """One step of the optimizer: losses over all processes, whether any received a signal to stop. LatentSyncError: no clip is read."""
        start, waited, passes = time.monotonic(), 0.0, self.run.gradient_accumulation_steps
        sums: dict[str, float] = {}
        clips: set[int] = set()
        for _ in range(passes):
            before = time.monotonic()
            try:
                batch = next(batches)
            except LatentSyncError as error:  # of a loading process: wrapped in its whole trace
                raise type(error)(last_line(str(error))) from error
            warn_once(batch.problems, self._told)
            waited += time.monotonic() - before
            clips.update(batch.clip.tolist())
            losses, grad_norm = self._forward_backward(batch)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach()) / passes
        vector = torch.tensor([*sums.values(), float(bool(received))], device=self.accelerator.device)
        *means, stopped = self.accelerator.reduce(vector, reduction="mean").tolist()
        losses = dict(zip(sums, means, strict=True))
        self._check_finite(losses, grad_norm, clips)
        samples = self.batch_size * self.accelerator.num_processes * passes
        self.position = Position(self.position.step + 1, self.position.samples + samples)
        seconds = time.monotonic() - start
        timing = {"seconds": seconds, "waiting": waited / max(seconds, 1e-9)}
        self._waiting += (timing["waiting"] - self._waiting) / STARVED_STEPS
        if self._waiting > STARVED and self.position.step > STARVED_STEPS:
            advice = "raise data.num_workers, or put data.cache_dir on a faster disk."
            warn_once([f"The training waits for data more than {STARVED:.0%} of the time: {advice}"], self._told)
        self._record(losses, timing if grad_norm is None else {"grad_norm": grad_norm, **timing})
        return losses, stopped > 0

    def _forward_backward(self, batch: Batch) -> tuple[Losses, float | None]:
        """One pass; the last one of a step moves the weights. The losses, and the norm of the whole gradient before it is clipped."""
        accelerator, grad_norm = self.accelerator, None
        self.model.train()
        try:
            with accelerator.accumulate(self.model):
                with accelerator.autocast():
                    losses = self.task.step(self.model, batch.to(accelerator.device))
                accelerator.backward(sum(self.run.loss_weights[name] * loss for name, loss in losses.items()))
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.trained, self.config.optimizer.max_grad_norm)
                    grad_norm = None if norm is None else float(norm)  # an engine that clips by itself does not tell
                    if grad_norm is not None and not math.isfinite(grad_norm) and accelerator.scaler is None:
                        for parameter in self.trained:  # no loss scaling would catch this: the weights stay as they are
                            parameter.grad = None
                self.optimizer.step()
                if accelerator.sync_gradients and not accelerator.optimizer_step_was_skipped:
                    self.schedule.step()
                    self.ema.update()
                self.optimizer.zero_grad(set_to_none=True)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"The device ran out of memory in step {self.position.step + 1} with {self.batch_size} sample(s) in a pass: lower "
                "data.batch_size and raise run.gradient_accumulation_steps; docs/training.md lists what else saves memory."
            ) from error
        return losses, grad_norm

    def _check_finite(self, losses: Mapping[str, float], grad_norm: float | None, clips: Iterable[int]) -> None:
        """Stop all processes where a loss or gradient is not finite; with loss scaling after several in a row or at too small a scale."""
        bad = [name for name, loss in losses.items() if not math.isfinite(loss)]
        if not bad and grad_norm is not None and not math.isfinite(grad_norm):
            bad = ["the gradient"]
        self._lost_steps = self._lost_steps + 1 if bad else 0
        scaler = self.accelerator.scaler
        if bad and (scaler is None or self._lost_steps > MAX_LOST_STEPS or scaler.get_scale() < MIN_SCALE):
            names = ", ".join(sorted(str(self.task.dataset.catalog.clips[clip].path) for clip in clips))
            raise LatentSyncError(
                f"Step {self.position.step + 1}: {', '.join(bad)} is no finite number any more (process "
                f"{self.accelerator.process_index} saw {names}): lower optimizer.lr, or check these clips; the same command goes on from "
                "the last checkpoint."
            )

    def _record(self, losses: dict[str, float], others: dict[str, float]) -> None:
        """Add a step to the history, which gets the mean of every `log_steps`; log the advice of the task's watch."""
        if self.history is None:
            return
        weighted = {"total": sum(self.run.loss_weights[name] * loss for name, loss in losses.items())} if len(losses) > 1 else {}
        self._recent.append(losses | weighted | others | {"lr": self.schedule.get_last_lr()[0]})
        if self.position.step % self.run.log_steps == 0 or self.position.step == 1:
            self._log_means()
        if self.task.watch is not None and (advice := self.task.watch(self.position.step, losses)):
            logger.warning("%s", advice)

    def _log_means(self) -> None:
        if self.history is not None and self._recent:
            means = {name: fmean(values[name] for values in self._recent if name in values) for name in self._recent[0]}
            self.history.add(self.position.step, TRAINING, means)
            self._recent = []

    def _save(self) -> None:
        self._log_means()
        self.store.save(self.accelerator, self.position, self._published())
        self._saved = self.position.step
        self._draw()

    def _published(self) -> dict[str, Any]:
        """What the published file holds; called on all processes, which together may hold the weights."""
        with self.ema.in_place():
            weights = self.accelerator.get_state_dict(self.model)
            if self.ema and self.accelerator.is_main_process:
                weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        return {} if self.history is None else self.task.publish(weights, self.position.step, self.history)

    def _validate_if_due(self) -> None:
        """Validate before the first step, every so often, and at the end, unless that has been done before."""
        step = self.position.step
        if not self.task.validators or (step % self.run.validation_steps and step < self.run.max_train_steps):
            return
        if gather_object([self.history is not None and self.history.was_validated(step)])[0]:
            return
        with self.ema.in_place():
            values = run_validators(self.task.validators, self.accelerator.unwrap_model(self.model), step, self.accelerator)
        if self.history is not None:
            self.history.add(step, VALIDATION, values)
        if values:
            logger.info("Step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if self.task.publishes_curves and step == self._saved:  # saved first, so that nothing is lost should validation end it all
            self.store.save_again(self.accelerator, step, self._published())
        self._draw()

    def _draw(self) -> None:
        if self.history is None:
            return
        try:
            draw_chart(self.history.points(), self.folder / CHART)
        except OSError as error:  # a picture is not worth a training
            logger.warning("%s cannot be drawn: %s", self.folder / CHART, error.strerror)


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), betas 0.9 and 0.999. Raises InputError where 8 bits are asked for and bitsandbytes or CUDA is missing."""
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


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """While this context lasts, SIGTERM, Ctrl-C and SIGHUP are only added to the list it gives; a second Ctrl-C interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def warn_once(problems: Iterable[str], told: set[str]) -> None:
    """Warn of problems that are not among those `told` before, such as clips that cannot be read."""
    for problem in dict.fromkeys(problems):
        if problem not in told:
            logger.warning("%s", problem)
    told.update(problems)


class BatchValidator:
    """A validation on held-out batches, which are the same every time; `batches` are this process's share of them."""

    name = "held-out clips"

    def __init__(self, batches: Iterable[Batch], step: Any = None) -> None:
        self.batches, self.step = batches, step
        self._told: set[str] = set()  # warnings

    def batches_for(self, model: nn.Module) -> Iterator[Any]:
        """The batches on the network's device, with a warning for each clip that cannot be read."""
        device = next(model.parameters()).device
        for batch in self.batches:
            warn_once(batch.problems, self._told)
            yield batch.to(device)

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
        """What `measure` gives, summed over the batches."""
        sums: dict[str, ValidationSum] = {}
        for batch in self.batches_for(model):
            for name, part in self.measure(model, batch).items():
                before = sums.get(name, ValidationSum(0.0, 0.0))
                sums[name] = part._replace(total=before.total + part.total, count=before.count + part.count)
        return sums

    def measure(self, model: nn.Module, batch: Any) -> dict[str, ValidationSum]:
        """Sums over one batch, by name; not used by a validator whose measures are no sums over batches."""
        raise NotImplementedError


def last_line(text: str) -> str:
    """What an error says that a loading process raised: the last line of the trace that it comes wrapped in, without the error's name."""
    _, newline, last = text.strip().rpartition("\n")
    return (last.partition(": ")[2] or last) if newline else last


def run_validators(validators: Sequence[Validator], model: nn.Module, step: int, accelerator: Accelerator) -> dict[str, float]:
    """What all validators measured over all processes; called on every process. The random state of the training is left as it was."""
    training = model.training
    model.eval()
    values: dict[str, float] = {}
    devices = [accelerator.device.index or 0] if accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), accelerator.autocast():
            for validator in validators:
                sums: dict[str, ValidationSum] | None = None
                try:
                    sums = validator(model, step)
                except Exception as error:  # whatever a validation meets is reported and never ends the training
                    what = (validator.name, step, first_line(error))
                    logger.error("The validation '%s' of step %d failed and is left out; the training goes on (%s)", *what)
                    logger.debug("Where it happened:", exc_info=error)
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                values |= mean_over_processes(gather_object([sums]))
    finally:
        model.train(training)
    return values


def mean_over_processes(sums: Sequence[dict[str, ValidationSum] | None]) -> dict[str, float]:
    """Means over all processes, none where one failed (None); shares get their 95 % interval (Wilson 1927) as name:low, name:high."""
    if any(part is None for part in sums):
        return {}
    values: dict[str, float] = {}
    for name in dict.fromkeys(name for part in sums for name in part):
        parts = [part[name] for part in sums if name in part]
        total, count = sum(part.total for part in parts), sum(part.count for part in parts)
        if not count:
            continue
        values[name] = total / count
        if parts[0].is_share:
            values[f"{name}:low"], values[f"{name}:high"] = binomtest(round(total), round(count)).proportion_ci(method="wilson")
    return values


def make_accelerator(run: RunConfig, device: str = "auto") -> Accelerator:
    """Processes and devices as `accelerate launch` made them, or this process; "cpu" leaves a GPU unused. Raises ConfigError: precision."""
    cpu = device == "cpu"
    cuda, precision = torch.cuda.is_available() and not cpu, run.mixed_precision
    if precision == "auto":
        is_bfloat16 = torch.cuda.is_bf16_supported() if cuda else is_fast_at_bfloat16()
        precision = "bf16" if is_bfloat16 else "fp16" if cuda else "no"
    if precision == "fp16" and not cuda:
        raise ConfigError("run.mixed_precision fp16 needs a CUDA device: set run.mixed_precision=auto.")
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
        cpu=cpu,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT), DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def half_precision(accelerator: Accelerator) -> torch.dtype:
    """What networks that are not trained compute in."""
    return HALF.get(accelerator.mixed_precision, torch.float32)


def seed_everything(run: RunConfig, accelerator: Accelerator) -> None:
    """Another seed on every process, the same at every start."""
    set_seed(run.seed + accelerator.process_index)


def output_folder(data: TrainingDataConfig) -> Path:
    """Where a training writes. Raises ConfigError where the configuration does not say."""
    if data.train_output_dir is None:
        raise ConfigError("data.train_output_dir is not set: name the folder for checkpoints, logs and charts.")
    return data.train_output_dir


def cache_folder(data: TrainingDataConfig) -> Path:
    """Where things are kept that are computed once for each clip."""
    return data.cache_dir or output_folder(data) / "cache"


def start_weights(ckpt: CkptConfig, data: TrainingDataConfig) -> Path | None:
    """The file that a new training starts from; None where there is none, or where a training goes on and needs it no more."""
    return None if CheckpointStore(output_folder(data), ckpt.keep_last).states() else ckpt.resume_ckpt_path


def default_weights(name: str) -> Path:
    """Where a file of the weights table is, or where it belongs."""
    return weights_path(name, ROOT / CHECKPOINTS)


def load_codec(config: Any, accelerator: Accelerator, slice_size: int | None = VAE_SLICE) -> LatentCodec:
    """The autoencoder of `config.weights.vae`, on the training's device."""
    codec = load_vae(config.weights.vae or default_weights("vae").parent, half_precision(accelerator)).to(accelerator.device)
    codec.slice_size = slice_size
    return codec


def open_catalogs(
    data: TrainingDataConfig,
    min_frames: int,
    accelerator: Accelerator,
    show_progress: bool,
    resolution: int = 0,
    open_clips: Callable[..., Catalog] = open_catalog,  # takes what that takes
) -> tuple[Catalog, Catalog | None]:
    """The clips to train on, and those held out, if any; the main process opens them first. Warns of small clips. Raises InputError."""
    open_clips = partial(open_clips, min_frames=min_frames, cache_dir=cache_folder(data), show_progress=show_progress)
    with accelerator.main_process_first():
        train, held_out = open_clips(data.train_data_dir, data.train_fileslist), None
        if data.val_data_dir is None and data.val_fileslist is None:
            logger.warning("No held-out clips are named (data.val_data_dir): nothing will show whether what is learnt holds for others.")
        else:
            held_out = open_clips(data.val_data_dir, data.val_fileslist)
    for name, catalog in (("training", train), ("held-out", held_out)):
        if catalog is not None and (sides := [clip.side for clip in catalog.clips if clip.side < resolution]):
            logger.warning(
                "%d of %d %s clips are smaller than data.resolution %d, the smallest %d pixels a side, and are blown up: "
                "lower data.resolution, or leave them out.",
                *(len(sides), len(catalog.clips), name, resolution, min(sides)),
            )
    if held_out is not None and (common := {clip.path for clip in train.clips} & {clip.path for clip in held_out.clips}):
        raise InputError(f"{len(common)} clips, such as {min(common)}, are both trained on and held out: take them out of one of the two.")
    return train, held_out


def held_out_batches(
    dataset: "ClipDataset[Any]", config: TrainingConfig, accelerator: Accelerator, batch_size: int | None = None
) -> "DataLoader[Any]":
    """This process's share of the samples of a validation."""
    rank, world, data = accelerator.process_index, accelerator.num_processes, config.data
    return fixed_batches(dataset, config.run.num_val_clips, batch_size or data.batch_size, rank, world, data.num_workers)
