"""Training of the autoencoder: dead-leaves pictures, crops, losses, stop and resume, export."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from data_fixtures import catalog_of, make_folder
from diffusers import AutoencoderKL
from omegaconf import OmegaConf
from training_fixtures import curve, newest_weights, write_clips

from embedded import autoencoder as train_autoencoder
from embedded.autoencoder import (
    AutoencoderDataConfig,
    AutoencoderStep,
    AutoencoderTrainee,
    AutoencoderValidator,
    PatchDiscriminator,
    PerceptualLoss,
    PictureBatch,
    PictureDataset,
    autoencoder_sizes,
    batch_pixels,
    colour_change,
    dead_leaves,
    edge_loss,
    load_autoencoder_config,
    mouth_of,
    psnr,
    some_faces,
    texture_loss,
    vary,
)
from latentsync.config import dump_config
from latentsync.data.sampling import SampleIndex, collate
from latentsync.errors import ConfigError
from latentsync.faces.mask import fixed_mask
from latentsync.models.vae import load_vae
from latentsync.weights import read_checkpoint

SIDE, CROP, LEAVES_SIDE = 64, 32, 96
WEIGHTS = {"l1": 1, "edge": 1, "texture": 0.5, "kl": 1e-4, "adversarial": 0.05, "features": 0.1, "discriminator": 0.05}
RECIPE = {
    "data": {"resolution": SIDE, "crop": CROP, "num_frames": 2, "batch_size": 1, "general_share": 0.5, "masked_share": 0.5},
    "model": {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4, "discriminator_width": 4},
    "run": {
        **{"max_train_steps": 4, "validation_steps": 2, "log_steps": 1, "num_val_clips": 3, "ema_decay": 0.5, "discriminator_start": 2},
        "mixed_precision": "no",
        "loss_weights": WEIGHTS,
    },
    "optimizer": {"lr": 1e-3},
    "ckpt": {"save_ckpt_steps": 2},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe beside its clips."""
    folder = tmp_path_factory.mktemp("auto encoder")
    OmegaConf.save(OmegaConf.create({**RECIPE, "data": {**RECIPE["data"], **write_clips(folder)}}), folder / "autoencoder.yaml")
    return folder / "autoencoder.yaml"


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    """The output of a training that was never interrupted."""
    assert run(recipe, recipe.parent / "whole") == 0
    return recipe.parent / "whole"


def run(recipe: Path, folder: Path, *more: str) -> int:
    arguments = ["--config_path", str(recipe), "--device", "cpu", "--quiet", f"data.train_output_dir={folder}"]
    return train_autoencoder.main([*arguments, *more])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("clips"), 2)


def dataset(clips: Path, varied: bool = True, **changes: object) -> PictureDataset:
    plain = {"num_frames": 4, "resolution": SIDE, "crop": CROP, "general_share": 0.0, "masked_share": 0.0}
    data = AutoencoderDataConfig(**{**plain, **changes})
    return PictureDataset(catalog_of(clips, clips.parent / "cache"), data, seed=1, varied=varied)


def batch(pictures: torch.Tensor, position: int = 0) -> PictureBatch:
    """Pictures f h w 3 as a batch of one sample, nothing hidden."""
    ones = torch.ones(pictures.shape[:-1])[None]
    return PictureBatch(torch.tensor([position]), torch.tensor([0]), [], pictures[None], ones, ones, ones)


def trainee() -> AutoencoderTrainee:
    torch.manual_seed(0)
    sizes = {"block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4, "layers_per_block": 1, "mid_block_add_attention": False}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    return AutoencoderTrainee(AutoencoderKL(**sizes, **blocks), PatchDiscriminator(4))


def test_a_sample_depends_on_its_position_alone(clips: Path) -> None:
    pictures = dataset(clips, general_share=0.5, masked_share=0.5)
    first, other = pictures[SampleIndex(5, 1)], pictures[SampleIndex(6, 1)]
    again = dataset(clips, general_share=0.5, masked_share=0.5)[SampleIndex(5, 1)]
    assert first.pictures.shape == (1, 4, CROP, CROP, 3) and first.pictures.dtype == torch.uint8
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.keep, again.keep)
    assert not torch.equal(first.pictures, other.pictures)
    joined = collate([first, other])
    assert joined.pictures.shape == (2, 4, CROP, CROP, 3) and joined.position.tolist() == [5, 6]


def test_held_out_faces_are_whole_and_shares_of_leaves_and_hidden_mouths_are_kept(clips: Path) -> None:
    plain = dataset(clips, crop=SIDE, num_frames=1, varied=False)
    frames = plain.faces(plain.catalog.clips[0], range(plain.catalog.clips[0].frames))
    assert (frames == plain[0].pictures[0]).flatten(1).all(1).any() and plain[0].keep.min() == 1
    hidden = dataset(clips, crop=SIDE, masked_share=1.0, varied=False)[0]
    assert torch.equal(hidden.keep[0], fixed_mask(SIDE).expand(4, -1, -1))
    pixels = batch_pixels(hidden)
    assert pixels[:, :, fixed_mask(SIDE) == 0].abs().max() == 0  # grey, as inference paints it
    faces = dataset(clips, masked_share=1.0, general_share=1.0)
    faces.faces = None  # nothing is decoded where nothing of it is wanted
    assert faces[0].keep.min() == 1


def test_mouths_and_edges_count(clips: Path) -> None:
    sample = dataset(clips, crop=SIDE, masked_share=0.0, mouth_weight=3.0, varied=False)[0]
    assert (mouth_of(sample.weight) == 3).all() and sample.weight.min() == 1
    hidden = dataset(clips, crop=SIDE, masked_share=1.0, mouth_weight=3.0)[0]
    leaves = dataset(clips, crop=SIDE, general_share=1.0, mouth_weight=3.0)[0]
    assert hidden.weight.max() == leaves.weight.max() == 1, "no mouth is visible"
    picture = torch.rand(2, 3, 16, 16)
    assert edge_loss(picture, picture + 0.3) == pytest.approx(0, abs=1e-6)  # brightness alone
    assert edge_loss(picture, torch.zeros_like(picture)) > edge_loss(picture, 0.5 * picture) > 0
    pixels, wrong = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)
    mouth_of(wrong)[..., ::2] = 1.0
    weight = sample.weight[0, :1, None]
    torch.testing.assert_close(edge_loss(wrong, pixels, 2 * weight), 2 * edge_loss(wrong, pixels, weight))
    assert edge_loss(wrong, pixels, weight) > 2 * edge_loss(wrong, pixels)
    grain, ones = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, SIDE, SIDE)
    assert texture_loss(grain.flip(3), grain, ones) < 0.3 * texture_loss(0.5 * grain, grain, ones)  # as much of it, elsewhere
    assert texture_loss(grain + 0.3, grain, ones) == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(texture_loss(0.5 * grain, grain, ones), 0.5 * texture_loss(0 * grain, grain, ones), rtol=0.01, atol=0)


def test_colours_change_but_grey_stays_grey() -> None:
    grey = np.full((8, 8, 3), 120, np.uint8)
    red = np.full((8, 8, 3), (200, 60, 50), np.uint8)
    changed = [vary(red, np.random.default_rng(seed)) for seed in range(8)]
    assert np.ptp([picture[4, 4] for picture in changed], axis=0).min() > 10
    for seed in range(8):
        assert np.ptp(vary(grey, np.random.default_rng(seed))[4, 4].astype(int)) <= 1
    matrix, offset = colour_change(np.random.default_rng(0))
    assert matrix.shape == (3, 3) and offset.shape == (3,)


def test_dead_leaves_fill_the_picture_and_repeat_with_their_seed() -> None:
    pictures = np.stack([dead_leaves(np.random.default_rng(seed), 32) for seed in range(8)])
    assert pictures.shape == (8, 32, 32, 3) and pictures.dtype == np.uint8
    assert pictures.std((1, 2, 3)).min() > 5 and np.abs(np.diff(pictures.astype(float), axis=-1)).mean() > 3  # neither empty nor grey
    assert np.array_equal(pictures[3], dead_leaves(np.random.default_rng(3), 32)) and not np.array_equal(pictures[3], pictures[4])


def test_the_spectrum_falls_like_that_of_photographs() -> None:
    """Amplitudes fall about as one over frequency: clearly faster than noise, more slowly than a blur."""
    grey = np.stack([dead_leaves(np.random.default_rng(seed), LEAVES_SIDE).mean(-1) for seed in range(24)])
    grey = (grey - grey.mean((1, 2), keepdims=True)) * np.outer(np.hanning(LEAVES_SIDE), np.hanning(LEAVES_SIDE))
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(LEAVES_SIDE), np.fft.fftfreq(LEAVES_SIDE)))
    rings = np.geomspace(0.03, 0.4, 8)
    means = [power[(low <= frequency) & (frequency < high)].mean() for low, high in pairwise(rings)]
    slope = np.polyfit(np.log(np.sqrt(rings[:-1] * rings[1:])), np.log(means) / 2, 1)[0]
    assert -2 < slope < -0.7, slope


def test_the_discriminator_begins_late_and_its_weight_grows() -> None:
    step = AutoencoderStep(WEIGHTS, discriminator_start=8, discriminator_ramp=4)
    assert [step.discriminator_weight(position) for position in (0, 7, 8, 9, 11, 40)] == [0, 0, 0.25, 0.5, 1, 1]
    pictures = torch.randint(0, 256, (2, CROP, CROP, 3), dtype=torch.uint8)
    both = trainee()
    before = step(both, batch(pictures, 7))
    sum(before.values()).backward()
    assert all(parameter.grad is not None for parameter in both.parameters()), "distributed training stops where one has none"
    assert set(before) == set(WEIGHTS) and before["discriminator"] == before["adversarial"] == 0 < before["l1"]
    after = step(trainee(), batch(pictures, 20))
    assert float(after["discriminator"].detach()) == pytest.approx(2, abs=1) and after["features"] > 0
    assert set(AutoencoderStep({"l1": 1.0})(trainee(), batch(pictures))) == {"l1"}


@pytest.mark.parametrize(
    ("loss", "learns"), [("discriminator", "discriminator"), ("adversarial", "vae"), ("features", "vae"), ("kl", "vae"), ("l1", "vae")]
)
def test_each_loss_teaches_one_of_the_two(loss: str, learns: str) -> None:
    both = trainee()
    pictures = torch.randint(0, 256, (2, CROP, CROP, 3), dtype=torch.uint8)
    AutoencoderStep(WEIGHTS)(both, batch(pictures))[loss].backward()
    for name, parameter in both.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert not moved or name.startswith(learns), name
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in getattr(both, learns).parameters())


@torch.no_grad()
def test_validation_measures_in_decibels_and_includes_the_mouth() -> None:
    pixels = torch.zeros(2, 3, 40, 40)
    spoilt = pixels.clone()
    spoilt[0] += 0.2  # a tenth of the range: 20 dB
    torch.testing.assert_close(psnr(spoilt, pixels)[0], torch.tensor(20.0))
    assert psnr(pixels, pixels)[1] > 90
    marked = torch.zeros(1, 1, 40, 40)
    marked[..., 24:36, 10:30] = 1
    assert mouth_of(marked).shape[-2:] == (12, 20) and mouth_of(marked).min() == 1
    tallies = AutoencoderValidator([batch(torch.zeros(2, CROP, CROP, 3, dtype=torch.uint8))])(trainee().eval(), 0)
    assert set(tallies) == {"l1", "psnr", "psnr_mouth"} and tallies["psnr"].count == 2


def test_training_leaves_checkpoints_and_curves(whole: Path) -> None:
    assert len(curve(whole, "training", "l1")) == 4
    assert curve(whole, "training", "discriminator")[:2] == [0, 0] and curve(whole, "training", "discriminator")[2] > 0.5
    assert len(curve(whole, "validation", "psnr_mouth")) == 3
    published = torch.load(sorted((whole / "checkpoints").glob("*.pt"))[-1], weights_only=True)
    assert published["global_step"] == 4 and published["config"]["block_out_channels"] == [8, 8, 16, 16]
    AutoencoderKL.from_config(published["config"]).load_state_dict(published["state_dict"])  # without the discriminator


def test_a_stopped_training_goes_on_as_if_it_had_not(recipe: Path, whole: Path) -> None:
    folder = recipe.parent / "stopped"
    assert run(recipe, folder, "run.max_train_steps=2", "data.num_workers=1") == 0
    assert run(recipe, folder) == 0
    for name in ("l1", "discriminator", "grad_norm"):
        assert curve(folder, "training", name) == pytest.approx(curve(whole, "training", name), rel=1e-4)
    again = newest_weights(folder)
    for name, value in newest_weights(whole).items():
        torch.testing.assert_close(again[name], value, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def test_the_exported_folder_decodes_alike_and_has_normalised_latents(whole: Path, recipe: Path) -> None:
    checkpoint = sorted((whole / "checkpoints").glob("*.pt"))[-1]
    folder = recipe.parent / "exported"
    command = ["--export", str(checkpoint), str(folder), "--clips", str(recipe.parent / "clips"), "--quiet"]
    assert train_autoencoder.main(command) == 0
    codec = load_vae(folder)
    published = read_checkpoint(checkpoint)
    raw = AutoencoderKL.from_config(published["config"]).eval()
    raw.load_state_dict(published["state_dict"])
    pixels = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    latents = codec.encode(pixels, torch.zeros(2, 4, SIDE // 8, SIDE // 8))
    expected = raw.decode(raw.encode(pixels).latent_dist.mode()).sample
    torch.testing.assert_close(codec.decode(latents), expected, rtol=1e-3, atol=1e-4)
    faces = torch.cat(list(some_faces(recipe.parent / "clips", SIDE)))
    normal, other = (codec.encode(faces, value * torch.ones(len(faces), 4, SIDE // 8, SIDE // 8)) for value in (0, 1))
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(normal.var((0, 2, 3)), torch.ones(4), atol=2e-2, rtol=0)
    assert (other - normal).abs().max() < 0.02  # a narrow posterior
    assert json.loads((folder / "config.json").read_text())["scaling_factor"] == 0.18215
    size = (folder / "diffusion_pytorch_model.safetensors").stat().st_size
    assert train_autoencoder.main([*command, "--half"]) == 0
    assert (folder / "diffusion_pytorch_model.safetensors").stat().st_size < 0.6 * size
    torch.testing.assert_close(load_vae(folder).decode(latents), expected, rtol=0.05, atol=0.02)


def test_the_decoder_alone_is_trained_and_shown_the_picture(recipe: Path, whole: Path) -> None:
    start, folder = sorted((whole / "checkpoints").glob("*.pt"))[-1], recipe.parent / "decoder"
    more = ("run.decoder_only=true", "run.latent_noise=0.1", "run.max_train_steps=2", f"ckpt.resume_ckpt_path={start}")
    assert run(recipe, folder, *more) == 0
    before, after = read_checkpoint(start)["state_dict"], newest_weights(folder)
    moved = {name for name, value in after.items() if name not in before or not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"decoder", "post_quant_conv", "skips"}
    command = ["--export", str(sorted((folder / "checkpoints").glob("*.pt"))[-1]), str(folder / "vae"), "--clips", str(recipe.parent)]
    assert train_autoencoder.main([*command, "--quiet"]) == 0
    assert load_vae(folder / "vae").is_shown_picture


def test_the_perceptual_loss_sees_blur() -> None:
    loss, pixels = PerceptualLoss(), torch.rand(1, 3, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(pixels, 3, stride=1, padding=1).requires_grad_()
    assert float(loss(pixels, pixels)) == pytest.approx(0, abs=1e-5)
    found = loss(blurred, pixels)
    found.backward()
    assert found.item() > 0.1 and blurred.grad.abs().max() > 0 and not loss.train().network.training


def test_the_shipped_recipe_is_sound_and_reads_back(tmp_path: Path) -> None:
    config = load_autoencoder_config(train_autoencoder.DEFAULT_CONFIG)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_autoencoder_config(tmp_path / "again.yaml") == config
    numbers = sum(parameter.numel() for parameter in AutoencoderKL.from_config(autoencoder_sizes(config)).parameters())
    assert 2e6 < numbers < 1e7


def test_settings_that_cannot_be_are_refused() -> None:
    for setting in ("data.crop=60", "data.general_share=1.5", "model.block_out_channels=[16,32]", "run.loss_weights.discriminator=0"):
        with pytest.raises(ConfigError, match=setting.split("=")[0]):
            load_autoencoder_config(train_autoencoder.DEFAULT_CONFIG, [setting])


def test_another_checkpoint_is_not_exported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    assert train_autoencoder.main(["--export", str(tmp_path / "other.pt"), str(tmp_path / "a"), "--clips", str(tmp_path)]) == 2
    assert "no checkpoint of an autoencoder" in caplog.text and not (tmp_path / "a").exists()
