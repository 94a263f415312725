"""The parts of a training one by one: what it remembers, draws, averages, warns of and refuses."""

import logging
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from refusals import refused
from torch import nn

from benchmarks.write_random_checkpoint import vae_config
from latentsync.config import EncoderConfig, OptimizerConfig, RunConfig, SyncNetConfig, dump_config
from latentsync.data.sampling import SyncNetBatch
from latentsync.errors import ConfigError, InputError
from latentsync.models.syncnet import StableSyncNet, syncnet_frames
from latentsync.models.vae import LatentCodec
from latentsync.training.checkpoint import CONFIG_FILE, CheckpointStore, check_config
from latentsync.training.logging import TRAINING, VALIDATION, History
from latentsync.training.syncnet import ChanceWatch, SyncNetStep, SyncNetTrainee, publish
from latentsync.training.trainer import EMA, ValidationSum, make_accelerator, make_optimizer, mean_over_processes
from latentsync.training.unet import freeze

ROOT = Path(__file__).parents[1]


def test_history_forgets_what_will_be_measured_again(tmp_path: Path) -> None:
    history = History(tmp_path)
    for step in (1, 2, 3):
        history.add(step, TRAINING, {"sync": step / 10})
    history.add(2, VALIDATION, {"accuracy": 0.5})
    history.close()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "ki')  # cut short by a crash
    again = History(tmp_path, step=2)
    assert [(point.step, point.kind) for point in again.points()] == [(1, TRAINING), (2, TRAINING), (2, VALIDATION)]
    assert again.was_validated(2) and not again.was_validated(3)


def test_shares_of_processes_are_mean_over_processes() -> None:
    first = {"sync": ValidationSum(6.0, 10), "accuracy": ValidationSum(7, 10, is_share=True)}
    second = {"sync": ValidationSum(1.0, 4), "accuracy": ValidationSum(3, 4, is_share=True)}
    values = mean_over_processes([first, second])
    assert values["sync"] == pytest.approx(0.5) and values["accuracy"] == pytest.approx(10 / 14)
    assert values["accuracy:low"] < 10 / 14 < values["accuracy:high"]
    assert mean_over_processes([first, None]) == {}


def test_the_average_lags_behind_and_is_put_in_place_for_a_while() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = EMA(list(layer.parameters()), decay=0.9)
    for value in (0.0, 1.0, 1.0):
        nn.init.constant_(layer.weight, value)
        average.update()
    with average.in_place():
        inside = float(layer.weight.detach())
    assert 0 < inside < 1 and float(layer.weight.detach()) == 1
    again = EMA(list(layer.parameters()), decay=0.9)
    again.load_state_dict(average.state_dict())
    with again.in_place():
        assert float(layer.weight.detach()) == pytest.approx(inside)
    assert not EMA(list(layer.parameters()), decay=0.0)


def test_freezing_by_name() -> None:
    model = nn.ModuleDict({"attentions": nn.Linear(2, 2), "resnets": nn.Linear(2, 2)})
    assert freeze(model, ["attentions."]) == 6
    assert model["attentions"].weight.requires_grad and not model["resnets"].weight.requires_grad
    assert freeze(model, []) == 12
    refused(ConfigError, "attention_s", freeze, model, ["attention_s"])


def test_what_a_device_cannot_do_is_refused() -> None:
    refused(ConfigError, "fp16 needs a CUDA device", lambda: make_accelerator(RunConfig(mixed_precision="fp16"), "cpu"))
    refused(InputError, "adamw_8bit needs", lambda: make_optimizer([nn.Parameter(torch.zeros(1))], OptimizerConfig(name="adamw_8bit")))


def test_chance_is_told_once_with_its_likely_cause() -> None:
    stuck, learning = ChanceWatch(5, 64, 300), ChanceWatch(5, 64, 300)
    told = [stuck(step, {"sync": 0.693}) for step in range(1, 8)]
    assert [message is not None for message in told] == [False] * 4 + [True, False, False]
    assert "batches of 64" in told[4] and "only 300 clips" in told[4] and "check_training_data" in told[4]
    assert not any(learning(step, {"sync": 0.693 - 0.05 * step}) for step in range(1, 8))


def test_a_folder_keeps_its_recipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / CONFIG_FILE).write_text(dump_config(SyncNetConfig()))
    (tmp_path / "resume").mkdir()
    changed = SyncNetConfig()
    changed.run.validation_steps = 7
    with caplog.at_level(logging.INFO, logger="latentsync"):
        check_config(changed, tmp_path)
    assert "run.validation_steps" in caplog.text
    changed.data.num_frames = 5
    refused(ConfigError, r"another data\.num_frames", check_config, changed, tmp_path)
    heavier = SyncNetConfig()
    heavier.run.loss_weights["mouth"] = 1.0
    refused(ConfigError, r"another run\.loss_weights\.mouth", check_config, heavier, tmp_path)
    (tmp_path / CONFIG_FILE).write_text(dump_config(heavier))
    heavier.run.loss_weights["mouth"] = 0.5
    check_config(heavier, tmp_path)


def test_old_checkpoints_go_and_folders_in_work_do_not_count(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    for step in range(4):
        (tmp_path / "resume" / f"step-{step:08d}").mkdir(parents=True)
    (tmp_path / "resume" / ".latentsync-step-00000009").mkdir()  # of a process that was killed
    assert len(store.states()) == 4
    store._prune()
    assert {path.name for path in (tmp_path / "resume").iterdir()} == {"step-00000002", "step-00000003"}
    assert [path.name for path in store.states()] == ["step-00000002", "step-00000003"]


@pytest.fixture
def trainee() -> SyncNetTrainee:
    audio = EncoderConfig(1, (32, 256), ((8, 4), (10, 4)), (0, 0))
    visual = EncoderConfig(6, (32, 256), ((4, 8), (8, 8)), (0, 0))
    torch.manual_seed(0)
    return SyncNetTrainee(StableSyncNet(audio, visual), torch.tensor([[0.2] * 11, [0.5] * 11]), num_frames=2)


def syncnet_batch(side: int = 64) -> SyncNetBatch:
    generator = torch.Generator().manual_seed(0)
    return SyncNetBatch(
        position=torch.tensor([4, 5]),
        clip=torch.tensor([0, 1]),
        problems=[],
        faces=torch.randint(256, (2, 2, side, side, 3), generator=generator, dtype=torch.uint8),
        mel=torch.randn(2, 1, 80, 16, generator=generator),
        label=torch.tensor([1.0, 0.0]),
        mouth=torch.full((2, 2, 11), 0.7),
        audio_mouth=torch.full((2, 2, 11), 0.7),
    )


def test_the_mouth_head_begins_with_the_mean_and_is_not_published(trainee: SyncNetTrainee, tmp_path: Path) -> None:
    step = SyncNetStep({"sync": 1, "mouth": 1}, lower_half=True)
    losses = step(trainee, syncnet_batch())
    assert float(losses["mouth"].detach()) == pytest.approx(2.0)  # one standard deviation off, of frames and of sound
    losses["mouth"].backward()
    assert trainee.mouth.linear.weight.grad.abs().sum() > 0
    published = publish(trainee.state_dict(), 3, History(tmp_path))
    assert set(published["state_dict"]) == set(trainee.syncnet.state_dict())
    assert "mouth" not in SyncNetStep({"sync": 1, "mouth": 0}, lower_half=True)(trainee, syncnet_batch())


def test_a_syncnet_of_latents_looks_through_the_autoencoder() -> None:
    codec = LatentCodec(AutoencoderKL.from_config(vae_config(tiny=True)))
    batch = syncnet_batch()
    step = SyncNetStep({"sync": 1}, lower_half=False, codec=codec, seed=1)
    view = step.view(batch)
    assert view.shape == (2, 2 * 4, 8, 8)
    torch.testing.assert_close(step.view(batch), view)  # the same sample is drawn for the same position
    pixels = SyncNetStep({"sync": 1}, lower_half=True).view(batch)
    assert pixels.shape == (2, 2 * 3, 32, 64)
    assert torch.equal(pixels, syncnet_frames((batch.faces.movedim(-1, -3).float() / 255 - 0.5) / 0.5, True))
