"""The loop that SyncNet and denoiser share: step, weigh, backward, log, validate, save; the same command goes on where it stopped."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers.optimization import get_scheduler
from torch import Tensor
from tqdm import tqdm

from latentsync.data.batches import Batch
from latentsync.errors import LatentSyncError, OutOfMemoryError
from latentsync.training.average import MovingAverage
from latentsync.training.charts import draw_chart
from latentsync.training.checkpoint import CheckpointStore, Position
from latentsync.training.feed import KILLED, Feed, loader_was_killed
from latentsync.training.history import TRAINING, VALIDATION, History, RunningMeans
from latentsync.training.optimizer import make_optimizer
from latentsync.training.parts import Parts
from latentsync.training.stop import StopSignals
from latentsync.training.validation import run_validators
from latentsync.training_config import CkptConfig, OptimizerConfig, RunConfig

logger = logging.getLogger(__name__)

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
        parts: Parts,
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
        self.average = MovingAverage(self.trained, self.run.ema_decay)
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

    def _feed(self) -> Feed:
        accelerator = self.accelerator
        return Feed(
            self.parts,
            seed=self.run.seed,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            samples=self.position.samples,
            pin_memory=accelerator.device.type == "cuda",
        )

    def _step(self, feed: Feed, stop: StopSignals) -> tuple[dict[str, float], bool]:
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
