"""Both training commands from clips to checkpoints: one real step, stop and go on, two processes, and what can go wrong."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_fixtures import make_training_clip
from skimage.data import astronaut
from torch import nn
from training_fixtures import FRAMES, LEARNING_RATE, curve, history, newest_weights, syncnet_recipe, unet_recipe

from latentsync.config import load_config
from latentsync.data import features as sound
from latentsync.data.sampling import SyncNetBatch
from latentsync.media.files import folder_lock
from latentsync.media.probe import probe
from latentsync.media.video_writer import VideoWriter
from latentsync.models.unet_weights import load_unet
from latentsync.training.syncnet import SyncNetStep
from latentsync.training.trainer import LOCK_FILE
from scripts import train_syncnet, train_unet

ROOT = Path(__file__).parents[1]
SOUND_SECONDS = 0.64  # that the validation video is given: 16 frames
CPU = ("--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SyncNet's recipe; tests write into output folders of their own."""
    return syncnet_recipe(tmp_path_factory.mktemp("sync net"))


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    """The output of a training that was never interrupted."""
    folder = recipe.parent / "whole"
    assert run(recipe, folder) == 0
    return folder


def run(recipe: Path, folder: Path, *more: str) -> int:
    return train_syncnet.main(["--config_path", str(recipe), *CPU, f"data.train_output_dir={folder}", *more])


def same(first: Path, second: Path, rounding: float = 1e-5) -> None:
    """Two trainings gave the same losses, gradients, validations and weights, but for rounding.

    Where a gradient is nothing but rounding (biases before a norm), Adam makes whole steps of it, so a few weights may differ.
    """
    for kind, name in (("training", "sync"), ("training", "mouth"), ("training", "grad_norm"), ("validation", "sync")):
        assert curve(second, kind, name) == pytest.approx(curve(first, kind, name), rel=rounding)
    expected, found = newest_weights(first), newest_weights(second)
    apart = torch.cat([(found[name] - expected[name]).abs().flatten() for name in expected])
    assert (apart > 0.1 * LEARNING_RATE).float().mean() < 1000 * rounding


def test_syncnet_learns_and_leaves_everything_behind(whole: Path, recipe: Path) -> None:
    assert len(curve(whole, "training", "sync")) == 4
    accuracy = curve(whole, "validation", "accuracy")
    assert len(accuracy) == 3 and all(0 <= value <= 1 for value in accuracy)  # at steps 0, 2 and 4
    assert curve(whole, "validation", "accuracy:low")[0] <= accuracy[0] <= curve(whole, "validation", "accuracy:high")[0]
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == ["checkpoint-00000002.pt", "checkpoint-00000004.pt"]
    published = torch.load(whole / "checkpoints" / "checkpoint-00000004.pt", weights_only=True)
    assert published["global_step"] == 4 and published["train_step_list"] == [1, 2, 3, 4] and published["val_step_list"] == [0, 2, 4]
    assert all(name.startswith(("audio_encoder.", "visual_encoder.")) for name in published["state_dict"])
    assert cv2.imread(str(whole / "loss_chart.png")).shape[0] > 100
    assert list((whole / "tensorboard").iterdir())
    assert run(recipe, whole) == 0  # nothing is left to do
    assert len(curve(whole, "training", "sync")) == 4


def test_a_stopped_training_goes_on_as_if_nothing_had_been(whole: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real, calls = recipe.parent / "stopped", SyncNetStep.__call__, []

    def step(self: SyncNetStep, model: nn.Module, batch: SyncNetBatch) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, model, batch)

    with monkeypatch.context() as stopping:
        stopping.setattr(SyncNetStep, "__call__", step)
        assert run(recipe, folder, "data.num_workers=1") == 130
    assert sorted(path.name for path in (folder / "resume").iterdir()) == ["step-00000002", "step-00000003"]
    assert run(recipe, folder) == 0
    same(whole, folder)
    assert [point["step"] for point in history(folder) if point["kind"] == "training"] == [1, 2, 3, 4]


def test_two_processes_equal_one(whole: Path, recipe: Path) -> None:
    """Half the batch on each of two processes: the same losses, the same weights."""
    folder = recipe.parent / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "scripts.train_syncnet"]
    command += ["--config_path", str(recipe), *CPU, f"data.train_output_dir={folder}", "data.batch_size=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    same(whole, folder, rounding=2e-3)
    assert (folder / "resume" / "step-00000004" / "random_states_1.pkl").is_file()


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unet_recipe(tmp_path_factory.mktemp("unet"))


def test_the_denoiser_learns_from_all_four_losses(denoiser: Path) -> None:
    folder = denoiser.parent / "out"
    portrait = denoiser.parent / "portrait.mp4"
    with VideoWriter(portrait, 384, 256, 25, crf=5) as sink:  # NASA, public domain
        for shift in range(FRAMES):
            sink.write(np.ascontiguousarray(astronaut()[:256, 40 - shift : 424 - shift]))
    spoken = make_training_clip(denoiser.parent / "spoken.mp4", seconds=SOUND_SECONDS)
    video = [f"data.val_video_path={portrait}", f"data.val_audio_path={spoken}"]
    settings = ["data.cache_latents=true", "data.cache_faces=true", "data.audio_dropout=0.5", "run.validation_steps=3"]
    assert train_unet.main(["--unet_config_path", str(denoiser), *CPU, *settings, *video]) == 0
    for name in ("recon", "sync", "lpips", "trepa"):
        assert len(curve(folder, "training", name)) == 1 and len(curve(folder, "validation", name)) == 2
    before = load_unet(load_config(denoiser).model, denoiser.parent / "latentsync_unet.pt").state_dict()
    after = load_unet(load_config(denoiser).model, folder / "checkpoints" / "checkpoint-00000001.pt").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert [path.name for path in sorted((folder / "validation").iterdir())] == ["step-00000000.mp4", "step-00000001.mp4"]
    assert probe(folder / "validation" / "step-00000001.mp4").require_video().frame_count == 25 * SOUND_SECONDS
    assert changed and all("motion_modules." in name or "attentions." in name for name in changed)
    assert any("motion_modules." in name for name in changed) and any("attn2" in name for name in changed)


def test_a_dry_run_encodes_nothing(denoiser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentsync.data.features.encode_clip", lambda *_: pytest.fail("a clip was encoded"))
    arguments = ["--unet_config_path", str(denoiser), *CPU, f"data.train_output_dir={denoiser.parent / 'dry'}", "data.cache_latents=true"]
    assert train_unet.main([*arguments, "--dry_run"]) == 0


def test_clips_smaller_than_the_faces_are_counted(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = shutil.copytree(recipe.parent / "clips", tmp_path / "clips")
    make_training_clip(clips / "small.mp4", face="testsrc2=size=48x48:rate=25:duration={seconds}")
    settings = [f"data.train_data_dir={clips}", "run.loss_weights.mouth=0"]
    assert run(recipe, tmp_path / "out", *settings, "--dry_run") == 0
    assert "1 of 5 training clips are smaller than data.resolution 64, the smallest 48 pixels a side" in caplog.text
    assert "held-out clips are smaller" not in caplog.text


def test_a_speaker_whose_sound_gives_no_numbers_is_left_out(
    recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for speaker in ("anna", "berta"):
        shutil.copytree(recipe.parent / "clips", tmp_path / "clips" / speaker)
    real = sound._mel

    def mel(path: Path) -> np.ndarray:
        values = real(path)
        values[:, 20] = np.nan if path.parent.name == "berta" else 0
        return values

    monkeypatch.setattr(sound, "_mel", mel)
    assert run(recipe, tmp_path / "out", f"data.train_data_dir={tmp_path / 'clips'}", "run.max_train_steps=4", "data.val_data_dir=") == 0
    assert "gives numbers that are not finite (mel-1)" in caplog.text and "anna" not in caplog.text
    assert len(curve(tmp_path / "out", "training", "sync")) == 4
    assert all(value.isfinite().all() for value in newest_weights(tmp_path / "out").values())


def refusal(capture: pytest.LogCaptureFixture, code: int, recipe: Path, *more: str) -> str:
    """What is said when a training cannot begin."""
    capture.clear()
    assert run(recipe, recipe.parent / "refused", *more) == code
    message = capture.records[-1].getMessage()
    assert "\n" not in message and "Traceback" not in message
    return message


def test_bad_input_is_one_sentence(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "other.pt").write_bytes(b"no checkpoint")
    assert "data.train_data_dir" in refusal(caplog, 2, recipe, "data.train_data_dir=")
    assert "held out" in refusal(caplog, 2, recipe, f"data.val_data_dir={recipe.parent / 'clips'}")
    assert "not a checkpoint" in refusal(caplog, 2, recipe, f"ckpt.resume_ckpt_path={tmp_path / 'other.pt'}")
    assert "do not fit 8 faces of 128 pixels" in refusal(caplog, 2, recipe, "data.resolution=128", "--dry_run")


def test_a_denoiser_frozen_from_nothing_is_refused(denoiser: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert train_unet.main(["--unet_config_path", str(denoiser), *CPU, "ckpt.resume_ckpt_path=", "--dry_run"]) == 2
    assert "run.trainable_modules" in caplog.records[-1].getMessage()


def test_a_checkpoint_of_another_shape(whole: Path, recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    wider = "model.visual_encoder.block_out_channels=[64,32,32,32,32,256]"
    start = f"ckpt.resume_ckpt_path={whole / 'checkpoints' / 'checkpoint-00000004.pt'}"
    assert "does not fit StableSyncNet" in refusal(caplog, 2, recipe, wider, start)
    caplog.clear()
    assert run(recipe, whole, wider) == 2  # nor does a training go on as another network
    assert "another data.train_output_dir" in caplog.records[-1].getMessage()


def test_a_step_without_a_number_ends_the_training(recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "no finite number" in refusal(caplog, 1, recipe, "optimizer.lr=1e30", "run.max_train_steps=20", "run.validation_steps=1000")


def test_a_killed_loading_process_is_one_sentence(recipe: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentsync.data.sampling.read_frames", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    message = refusal(caplog, 1, recipe, "data.num_workers=1", "data.val_data_dir=")
    assert "ended from outside" in message and "data.num_workers" in message


def test_a_folder_in_use_is_left_alone(whole: Path, recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    with folder_lock(whole, LOCK_FILE, "is in use"):
        assert run(recipe, whole) == 2
    assert "in use" in caplog.records[-1].getMessage()


def test_print_config_stops_before_anything(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(recipe, recipe.parent / "never", "--print_config", "run.seed=7") == 0
    assert "seed: 7" in capsys.readouterr().out
    assert not (recipe.parent / "never").exists()
