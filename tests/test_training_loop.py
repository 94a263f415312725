"""The loop alone, with one linear layer: what it takes over from a checkpoint, and how it ends when something goes wrong."""

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from refusals import refused
from torch import Tensor, nn
from torch.utils.data import Dataset
from training_fixtures import curve, history

from latentsync.config import CkptConfig, OptimizerConfig, RunConfig, TrainingConfig, TrainingDataConfig
from latentsync.data.clip_index import Catalog, ClipInfo
from latentsync.data.sampling import Batch, SampleIndex
from latentsync.errors import LatentSyncError, OutputError
from latentsync.training.trainer import Trainer, TrainingTask, ValidationSum, Validator, make_accelerator, seed_everything

CLIPS = 8


@dataclass(frozen=True)
class Numbers(Batch):
    x: Tensor


class NumbersDataset(Dataset[Numbers]):
    catalog = Catalog(tuple(ClipInfo(Path(f"clip {number}"), 75, 3.0) for number in range(CLIPS)))

    def __len__(self) -> int:
        return CLIPS

    def __getitem__(self, turn: SampleIndex) -> Numbers:
        return Numbers(torch.tensor([turn.position]), torch.tensor([turn.clip]), [], torch.full((1, 4), 1.0 + turn.position % 7))


def loss(model: nn.Module, batch: Numbers) -> dict[str, Tensor]:
    return {"a": model(batch.x).square().mean()}


def trainer(
    folder: Path,
    *,
    steps: int,
    step: Callable[[nn.Module, Numbers], dict[str, Tensor]] = loss,
    workers: int = 0,
    passes: int = 1,
    batch_size: int = 1,
    validators: Sequence[Validator] = (),
    optimizer: OptimizerConfig | None = None,
    save: int = 1000,
    scale: float | None = None,  # of the loss, as half precision wants it
) -> Trainer:
    run = RunConfig(max_train_steps=steps, gradient_accumulation_steps=passes, loss_weights={"a": 1.0}, log_steps=1, mixed_precision="no")
    accelerator = make_accelerator(run, "cpu")
    accelerator.scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    seed_everything(run, accelerator)
    folder.mkdir(exist_ok=True)
    return Trainer(
        accelerator,
        TrainingTask(
            model=nn.Linear(4, 1),
            step=step,
            dataset=NumbersDataset(),
            publish=lambda weights, number, history: {"state_dict": dict(weights), "global_step": number},
            validators=validators,
        ),
        TrainingConfig(
            data=TrainingDataConfig(train_output_dir=folder, batch_size=batch_size, num_workers=workers),
            run=run,
            optimizer=optimizer or OptimizerConfig(lr=1e-3),
            ckpt=CkptConfig(save_ckpt_steps=save),
        ),
        show_progress=False,
    )


def test_settings_that_changed_count_from_the_next_step_on(tmp_path: Path) -> None:
    assert trainer(tmp_path, steps=3, passes=2).train()
    changed = OptimizerConfig(lr=5e-4, weight_decay=0.5)
    again = trainer(tmp_path, steps=5, passes=4, optimizer=changed)
    assert again.train()
    assert {group["lr"] for group in again.optimizer.param_groups} == {5e-4}
    assert {group["weight_decay"] for group in again.optimizer.param_groups} == {0.5}
    assert curve(tmp_path, "training", "lr") == [1e-3] * 3 + [5e-4] * 2
    assert all(length > 0 for length in curve(tmp_path, "training", "grad_norm"))  # whole steps, of four passes each
    assert again.position.samples == 3 * 2 + 2 * 4


def test_a_gradient_without_a_number_moves_nothing(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: Numbers) -> dict[str, Tensor]:
        late = (batch.position >= 2).float()
        return {"a": loss(model, batch)["a"] + (model(batch.x).sum() * 0 * late.sum()).sqrt()}  # sqrt(0): a number, its gradient none

    training = trainer(tmp_path, steps=6, step=step, save=1)
    refused(LatentSyncError, r"the gradient is no finite number any more \(process 0 saw clip", training.train)
    assert all(value.isfinite().all() for value in training.model.state_dict().values())


def numbers_without(clip: int) -> Callable[[nn.Module, Numbers], dict[str, Tensor]]:
    """A step for which one clip of the eight holds no number."""
    return lambda model, batch: {"a": model(torch.where(batch.clip[:, None] == clip, torch.nan, batch.x)).square().mean()}


def test_a_clip_without_a_number_ends_the_training_and_is_named(tmp_path: Path) -> None:
    training = trainer(tmp_path, steps=2 * CLIPS, step=numbers_without(3), save=1)
    refused(LatentSyncError, r"Step \d: a is no finite number any more \(process 0 saw clip 3\)", training.train)
    assert all(value.isfinite().all() for value in training.model.state_dict().values())
    saved = sorted((tmp_path / "checkpoints").iterdir())
    weights = [torch.load(path, weights_only=True)["state_dict"] for path in saved]
    assert saved[-1].name == f"checkpoint-{training.position.step:08d}.pt"
    assert all(value.isfinite().all() for state in weights for value in state.values())


def test_loss_scaling_leaves_out_the_steps_of_a_clip_without_a_number(tmp_path: Path) -> None:
    moved: list[Tensor] = []

    def step(model: nn.Module, batch: Numbers) -> dict[str, Tensor]:
        moved.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        return numbers_without(3)(model, batch)

    training = trainer(tmp_path, steps=2 * CLIPS, step=step, scale=2.0**16)
    assert training.train()
    assert all(value.isfinite().all() for value in moved)
    still = sum(torch.equal(before, after) for before, after in pairwise(moved))
    assert still == sum(not math.isfinite(value) for value in curve(tmp_path, "training", "a")[:-1]) > 0
    assert training.accelerator.scaler.get_scale() == 2.0**14


def test_loss_scaling_that_sinks_ends_the_training(tmp_path: Path) -> None:
    """One clip in eight never lets the scale recover: its gradients would all be zeros in half precision in the end."""
    training = trainer(tmp_path, steps=10 * CLIPS, step=numbers_without(3), scale=4.0)
    refused(LatentSyncError, "saw clip 3", training.train)
    assert 2 * CLIPS < training.position.step < 3 * CLIPS


def test_a_damaged_state_makes_way_for_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert trainer(tmp_path, steps=2, save=1).train()
    newest = tmp_path / "resume" / "step-00000002" / "random_states_0.pkl"
    newest.write_bytes(newest.read_bytes()[:200])
    again = trainer(tmp_path, steps=3)
    assert again.train()
    assert "random_states_0.pkl is damaged" in caplog.text
    assert [point["step"] for point in history(tmp_path)] == [1, 2, 3]  # the second was taken again


def test_a_signal_to_the_whole_group_is_heard_by_the_training_alone(tmp_path: Path) -> None:
    def step(model: nn.Module, batch: Numbers) -> dict[str, Tensor]:
        if int(batch.position) == 2:
            groups = {os.getpgid(child.pid) for child in multiprocessing.active_children()}
            assert groups and os.getpgid(0) not in groups
            os.kill(os.getpid(), signal.SIGTERM)
        return loss(model, batch)

    assert not trainer(tmp_path, steps=9, step=step, workers=1).train()
    assert (tmp_path / "resume" / "step-00000003").is_dir()


def test_a_signal_during_the_first_validation_saves(tmp_path: Path) -> None:
    class Killing:
        name = "killing"

        def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
            os.kill(os.getpid(), signal.SIGTERM)
            return {"a": ValidationSum(1.0, 1.0)}

    assert not trainer(tmp_path, steps=9, validators=[Killing()]).train()
    assert (tmp_path / "resume" / "step-00000001").is_dir()


def test_accumulated_passes_equal_one_batch(tmp_path: Path) -> None:
    found = []
    for folder, sizes in ((tmp_path / "passes", {"passes": 2}), (tmp_path / "batch", {"batch_size": 2})):
        training = trainer(folder, steps=3, **sizes)
        assert training.train()
        found.append((curve(folder, "training", "a"), torch.cat([value.flatten() for value in training.model.state_dict().values()])))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_failing_validation_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        name = "failing"

        def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
            raise ValueError("the screen is missing")

    assert trainer(tmp_path, steps=2, validators=[Failing()]).train()
    assert "the screen is missing" in caplog.text and "the training goes on" in caplog.text
    assert len(curve(tmp_path, "training", "a")) == 2 and not curve(tmp_path, "validation", "a")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trainer(tmp_path, steps=2).train()
    real = torch.save

    def full(content: object, file: object, *more: object) -> None:
        if str(file).endswith(".pt"):
            raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")
        real(content, file, *more)

    with monkeypatch.context() as broken:
        broken.setattr(torch, "save", full)
        refused(OutputError, "free some space", lambda: trainer(tmp_path, steps=4).train())
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step-00000002"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-00000002.pt"]
    assert trainer(tmp_path, steps=4).train()  # with room again, it goes on
    assert (tmp_path / "resume" / "step-00000004").is_dir()
