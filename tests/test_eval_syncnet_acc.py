"""The command that tells how accurate a SyncNet is, from files to files; and the numbers behind it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fixtures import catalog_of, make_folder
from evaluation_fixtures import write_syncnet
from omegaconf import OmegaConf
from torch import Tensor
from training_fixtures import FRAMES

from eval.eval_syncnet_acc import Pairs, main, roc_area
from latentsync.data.features import Mels
from latentsync.data.sampling import fixed_batches
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.models.syncnet import SyncNet, load_syncnet
from latentsync.sync_meter import SyncMeter
from latentsync.third_party.sync_search import MAX_SHIFT
from latentsync.training.syncnet import SyncNetStep, SyncNetTrainee, SyncNetValidator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, weights and two clips, one of them broken besides."""
    found = tmp_path_factory.mktemp("accuracy")
    write_syncnet(found)
    make_folder(found / "held out", 2)
    (found / "held out" / "broken.mp4").write_bytes(b"no video")
    return found


def arguments(folder: Path, *more: object) -> list[str]:
    given = ["--config", folder / "syncnet.yaml", "--checkpoint", folder / "syncnet.pt", "--device", "cpu", "--quiet", *more]
    return [str(part) for part in given]


def test_from_clips_to_a_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, clips = tmp_path / "out", folder / "held out"
    sizes = ("--pairs", 7, "--batch_size", 3, "--offset_clips", 1, "--offset_frames", 30)
    assert main(arguments(folder, "--data_dir", clips, "--output_dir", out, *sizes)) == 0
    found, table = json.loads((out / "syncnet_acc.json").read_text()), (out / "syncnet_acc.md").read_text()
    assert table == capsys.readouterr().out and "7 pairs" in table and "from 2 of 2 clips" in table
    assert list(found["rejected_clips"]) == [str(clips / "broken.mp4")] and "1 clips cannot be used" in table
    assert len(found["accuracy_at_thresholds"]) == 101 and found["pairs"] == 7 and sum(found["offsets"].values()) == 1
    assert found["accuracy_shuffled_labels"]["count"] == 7 and (out / "syncnet_acc.png").read_bytes()[:4] == b"\x89PNG"
    config, network = load_syncnet(folder / "syncnet.yaml", folder / "syncnet.pt")
    dataset = SyncNetDataset(
        catalog_of(clips, tmp_path / "c"), Mels(tmp_path / "c"), num_frames=FRAMES, resolution=64, seed=config.run.seed
    )
    validator = SyncNetValidator(fixed_batches(dataset, 7, 7), SyncNetStep({}, lower_half=True))
    with torch.no_grad():
        tallies = validator(SyncNetTrainee(network.eval()), 0)
    assert found["loss"] == pytest.approx(tallies["sync"].total / 7, abs=1e-5)
    assert found["accuracy"]["value"] == pytest.approx(tallies["accuracy"].total / 7)
    assert found["accuracy"]["value"] == pytest.approx(found["accuracy_at_thresholds"][50])


def test_a_list_of_clips_without_an_output_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text(f"{folder / 'held out' / 'clip0.mp4'}\nnone.mp4\n")
    assert main(arguments(folder, "--fileslist", tmp_path / "list.txt", "--pairs", 2, "--offset_clips", 1, "--offset_frames", 20)) == 0
    table = capsys.readouterr().out
    for words in ("from 1 of 1 clips", f"an offset needs {FRAMES + MAX_SHIFT}", "| clips whose offset is 0 (Wilson) | -"):
        assert words in table


def test_what_does_not_belong_together_is_refused(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = OmegaConf.load(folder / "syncnet.yaml")
    other.model.visual_encoder.block_out_channels[0] = 64
    OmegaConf.save(other, tmp_path / "syncnet.yaml")
    assert main([*arguments(folder, "--data_dir", folder / "held out"), "--config", str(tmp_path / "syncnet.yaml")]) == 2
    assert "use the weights that belong to" in caplog.text and "does not fit StableSyncNet" in caplog.text
    assert main(arguments(folder)) == 2 and "No clips are named" in caplog.text
    assert main(arguments(folder, "--data_dir", tmp_path, "--pairs", 0)) == 2 and "--pairs is 0" in caplog.text
    assert main(arguments(folder, "--data_dir", tmp_path)) == 2 and "holds no clip" in caplog.text


def pairs_of(cosines: list[float], labels: list[int]) -> Pairs:
    return Pairs(np.array(cosines), np.array(labels, dtype=bool), np.arange(len(labels)) // 2, 0.5)


def test_numbers_of_known_pairs() -> None:
    pairs = pairs_of([0.9, 0.8, 0.6, 0.55, 0.2, 0.1], [1, 1, 0, 1, 0, 0])
    found = pairs.estimates()
    assert found["accuracy"][0] == pytest.approx(5 / 6) and found["accuracy"][3] == 6
    assert found["accuracy_over_clips"][0] == pytest.approx(5 / 6) and found["accuracy_over_clips"][3] == 3
    assert [pairs.right(threshold).mean() for threshold in (0, 0.5, 0.7, 1)] == pytest.approx([1 / 2, 5 / 6, 5 / 6, 1 / 2])
    assert roc_area(pairs.cosines, pairs.labels) == pytest.approx(8 / 9) == found["roc_area"][0]
    assert roc_area(np.full(4, 0.5), np.array([True, False, True, False])) == 0.5
    assert pairs_of([0.3, 0.9], [1, 1]).estimates()["roc_area"] is None


def test_shuffled_labels_are_chance() -> None:
    labels = np.arange(2000) % 2
    found = pairs_of((0.1 + 0.8 * labels).tolist(), labels.tolist()).estimates()
    assert found["accuracy"][0] == 1 and found["accuracy_shuffled_labels"][1] < 0.5 < found["accuracy_shuffled_labels"][2]


class Pooled:
    """An autoencoder whose latents are the colours of 8 x 8 pixels, and their mean."""

    dtype = torch.float32

    def encode(self, pixels: Tensor, noise: Tensor) -> Tensor:
        colours = torch.nn.functional.avg_pool2d(pixels, 8)
        assert noise.shape == (len(pixels), 4, *colours.shape[-2:])
        return torch.cat([colours, colours.mean(1, keepdim=True)], 1)


def test_windows_of_a_syncnet_of_latents() -> None:
    network = SyncNet(4 * 2 * 4 * 8, torch.nn.Linear(1, 1), torch.nn.Identity())
    faces = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3)).astype(np.uint8))
    found = SyncMeter(network, codec=Pooled(), resolution=64, num_frames=2, lower_half=True).embed_faces(faces)
    pixels = faces.permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = Pooled().encode(pixels, torch.empty(20, 4, 8, 8))[:, :, 4:]
    wanted = torch.nn.functional.normalize(torch.stack([latents[k : k + 2].flatten() for k in range(19)]))
    assert torch.allclose(found, wanted, atol=1e-5)
