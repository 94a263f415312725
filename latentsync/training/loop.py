"""The loop that SyncNet and denoiser share: step, weigh, backward, log, validate, save; the same command goes on where it stopped."""

import logging
import math
import time
from collections.abc import Mapping
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
from latentsync.training.feed import Feed
from latentsync.training.history import TRAINING, VALIDATION, History, RunningMeans
from latentsync.training.optimizer import make_optimizer
from latentsync.training.parts import Parts
from latentsync.training.stop import StopSignals
from latentsync.training.validation import run_validators
from latentsync.training_config import CkptConfig, OptimizerConfig, RunConfig

logger = logging.getLogger(__name__)

LOST_STEPS = 20  # steps without a number, one after another, that loss scaling may take to find its scale
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
        self.max_grad_norm, self.save_steps = optimizer.max_grad_norm, ckpt.save_ckpt_steps
        self.store = CheckpointStore(folder, ckpt.keep_last)
        self.position = Position()
        self.history: History | None = None  # of the main process
        self._log, self._lost = RunningMeans(), 0
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
        self.position = self.store.load(self.accelerator)
        if self.accelerator.is_main_process:
            self.history = History(self.folder, self.position.step)
        if self.position.step:
            self._say("Going on from step %d", self.position.step)
        try:
            self._validate_if_due()
            return self._steps()
        finally:
            if self.history is not None:
                self.history.close()

    def _steps(self) -> bool:
        """All steps that are left; whether the last one was reached."""
        feed, saved, stopped = None, self.position.step, False
        total = self.run.max_train_steps
        with StopSignals() as stop, tqdm(total=total, initial=saved, unit="step", disable=None if self.show_progress else True) as bar:
            while self.position.step < total and not stopped:
                feed = feed or self._feed()
                losses, stopped = self._step(feed, stop.asked)
                bar.set_postfix({name: f"{loss:.4g}" for name, loss in losses.items()}, refresh=False)
                bar.update()
                if stopped or self.position.step % self.save_steps == 0 or self.position.step == total:
                    self._save()
                    saved = self.position.step
                if not stopped:
                    self._validate_if_due()
        if stopped:
            self._say("Stopped and saved at step %d; the same command goes on from there", saved)
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
        )

    def _step(self, feed: Feed, asked_to_stop: bool) -> tuple[dict[str, float], bool]:
        """One step of the optimizer: the losses over all processes, and whether any of them was asked to stop."""
        start, waited, passes = time.monotonic(), feed.waited, self.run.gradient_accumulation_steps
        sums: dict[str, float] = {}
        for _ in range(passes):
            batch = feed.next()
            losses, grad_norm = self._pass(batch)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach()) / passes
        vector = torch.tensor([*sums.values(), float(asked_to_stop)], device=self.accelerator.device)
        *means, stopped = self.accelerator.reduce(vector, reduction="mean").tolist()
        losses = dict(zip(sums, means, strict=True))
        self._check(losses, batch)
        seen = self.batch_size * self.accelerator.num_processes * passes
        self.position = Position(self.position.step + 1, self.position.samples + seen)
        seconds = time.monotonic() - start
        self._record(losses, {"grad_norm": grad_norm, "seconds": seconds, "waiting": (feed.waited - waited) / max(seconds, 1e-9)})
        return losses, stopped > 0

    def _pass(self, batch: Batch) -> tuple[dict[str, Tensor], float]:
        """Forward and backward, and on the last pass of a step the weights move: the losses, and the length of the gradient."""
        accelerator, grad_norm = self.accelerator, math.nan
        self.model.train()
        try:
            with accelerator.accumulate(self.model):
                with accelerator.autocast():
                    losses = self.parts.step(self.model, batch.to(accelerator.device))
                accelerator.backward(sum(self.run.loss_weights[name] * loss for name, loss in losses.items()))
                if accelerator.sync_gradients:
                    grad_norm = float(accelerator.clip_grad_norm_(self.trained, self.max_grad_norm))
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

    def _check(self, losses: Mapping[str, float], batch: Batch) -> None:
        """Stop, on all processes alike, where a loss is no number; with loss scaling only after several such steps in a row."""
        bad = [name for name, loss in losses.items() if not math.isfinite(loss)]
        self._lost = self._lost + 1 if bad else 0
        if self._lost > (LOST_STEPS if self.accelerator.scaler is not None else 0):
            clips = ", ".join(sorted({self.parts.clip_name(clip) for clip in batch.clip.tolist()}))
            raise LatentSyncError(
                f"Step {self.position.step + 1}: {', '.join(bad)} is no finite number any more (process {self.accelerator.process_index} "
                f"saw {clips}): lower optimizer.lr, or look at these clips; the same command goes on from the last checkpoint."
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
        with self.average.in_place():
            weights = self.accelerator.get_state_dict(self.model)
            if self.average and self.accelerator.is_main_process:
                weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
        published: dict[str, Any] = {}
        if self.history is not None:
            published = self.parts.publish(weights, self.position.step, self.history)
        self.store.save(self.accelerator, self.position, published)
        self._draw()

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
        if self.history is not None and values:
            self.history.add(step, VALIDATION, values)
            self._say("Step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        self._draw()

    def _draw(self) -> None:
        if self.history is not None:
            draw_chart(self.history.points(), self.folder / CHART)

    def _say(self, message: str, *values: object) -> None:
        if self.accelerator.is_main_process:
            logger.info(message, *values)
