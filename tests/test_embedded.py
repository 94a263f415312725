"""The embedded model: which model inference takes by itself, and how networks become the folder that it is shipped as."""

import logging
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from benchmarks.write_random_checkpoint import write_checkpoint
from embedded.autoencoder import load_autoencoder_config
from embedded.convert_whisper import DEFAULT_OUTPUT
from embedded.landmarks import load_landmark_config
from embedded.pack import MOST_BYTES, SYNCNET, UNET, main
from latentsync.config import SyncNetConfig, load_config, load_syncnet_config
from latentsync.errors import WeightsError
from latentsync.media.video_reader import VideoReader
from latentsync.models.syncnet import make_syncnet
from latentsync.pipelines.build import CONFIGS, EMBEDDED, find_config
from latentsync.training.syncnet import check_sizes
from latentsync.weights import CHECKPOINTS, WEIGHTS
from scripts.inference import main as inference

ROOT = Path(__file__).parents[1]
UNET_RECIPE = """
data: {resolution: 64, num_frames: 4, mask: mask2}
model: {block_out_channels: [32, 32, 32, 32], layers_per_block: 1, cross_attention_dim: 64}
weights: {whisper: whisper/tiny.pt}
run: {inference_steps: 7, guidance_scale: 1.0}
"""
ENCODER = {"downsample_factors": [[2, 1], 2, 2, 2, 2, [2, 3]], "attn_blocks": [0] * 6, "block_out_channels": [32] * 6}
SYNCNET_RECIPE = {
    "data": {"resolution": 128, "num_frames": 16},
    "model": {
        "audio_encoder": {"in_channels": 1, **ENCODER},
        "visual_encoder": {"in_channels": 48, **ENCODER, "downsample_factors": [2, 2, 2, 2, 2, [2, 4]]},
    },
}


RECIPES, SHIPPED = ROOT / "embedded" / "configs", ROOT / "assets" / "embedded"


def test_recipes_fit_together() -> None:
    first, second = (load_config(RECIPES / f"{name}.yaml") for name in ("unet_stage1", "unet"))
    assert not first.model.use_motion_module and second.model.use_motion_module
    assert replace(first.model, use_motion_module=True, motion_module_decoder_only=True) == second.model
    syncnet, latent = (load_syncnet_config(RECIPES / f"{name}.yaml") for name in ("syncnet", "syncnet_latent"))
    for config in (syncnet, latent):
        check_sizes(config)
        assert config.data.num_frames == second.data.num_frames
    assert latent.data.latent_space and latent.data.resolution == second.data.resolution
    assert first.weights.whisper == second.weights.whisper and first.weights.whisper.samefile(DEFAULT_OUTPUT)
    autoencoder = load_autoencoder_config(RECIPES / "autoencoder.yaml")
    assert {first.data.resolution, second.data.resolution, autoencoder.data.resolution} == {128} and 128 % syncnet.data.resolution == 0
    assert load_landmark_config(RECIPES / "landmarks.yaml").run.loss_weights["landmarks"] > 0
    assert first.data.counterfactual_pairs and second.data.counterfactual_pairs


def place(root: Path, *relative: Path) -> None:
    for path in relative:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_published_weights_win_over_the_embedded_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WeightsError, match=r"No denoiser was found .* --inference_ckpt_path"):
        find_config(tmp_path)
    place(tmp_path, EMBEDDED)
    with caplog.at_level(logging.INFO):
        assert find_config(tmp_path) == tmp_path / EMBEDDED
    assert [record.message.count("embedded model") for record in caplog.records] == [1]
    caplog.clear()
    for version in ("1.0", "1.5", "1.6"):  # each newer one wins
        place(tmp_path, CHECKPOINTS / WEIGHTS[f"unet-{version}"].path)
        assert find_config(tmp_path) == tmp_path / "configs" / "unet" / CONFIGS[version]
    assert not caplog.records


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Tiny networks as trainings leave them, and the command line that packs them."""
    folder = tmp_path_factory.mktemp("parts")
    write_checkpoint(folder, tiny=True)
    (folder / "unet.yaml").write_text(UNET_RECIPE)
    (folder / "syncnet.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(SYNCNET_RECIPE)))
    config: SyncNetConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SyncNetConfig), SYNCNET_RECIPE))
    torch.save({"state_dict": make_syncnet(config.model).state_dict(), "global_step": 3}, folder / "syncnet.pt")
    files = {
        **{"unet": "latentsync_unet.pt", "unet_config": "unet.yaml", "vae": "sd-vae-ft-mse"},
        **{"syncnet": "syncnet.pt", "syncnet_config": "syncnet.yaml"},
    }
    return [f"--{name}={folder / path}" for name, path in files.items()]


def test_packing_keeps_everything_inference_needs(parts: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    assert main([*parts, f"--output_dir={folder}"]) == 0
    config = load_config(folder / "config.yaml")
    assert (config.data.resolution, config.data.num_frames, config.data.mask) == (64, 4, "mask2")
    assert (config.run.inference_steps, config.run.guidance_scale) == (7, 1.0)
    assert (config.weights.unet, config.weights.vae, config.weights.whisper) == (folder / UNET, folder / "vae", folder / "tiny.pt")
    weights = load_file(folder / UNET)
    assert {value.dtype for value in weights.values()} == {torch.float16}
    theirs = torch.load(Path(parts[0].partition("=")[2]), weights_only=True)["state_dict"]
    name = "conv_in.weight"
    assert torch.equal(weights[name], theirs[name].half()) and len(weights) == len(theirs)
    assert (folder / SYNCNET).is_file() and not list(folder.rglob(".latentsync-*"))


def test_a_recipe_of_another_network_is_refused(parts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = Path(parts[1].partition("=")[2]).with_name("other.yaml")
    other.write_text(UNET_RECIPE.replace("layers_per_block: 1", "layers_per_block: 2"))
    replaced = [part if not part.startswith("--unet_config=") else f"--unet_config={other}" for part in parts]
    assert main([*replaced, f"--output_dir={tmp_path / 'embedded'}"]) == 2
    assert UNET in caplog.text and "layers" in caplog.text
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "nothing of it is left"


def test_the_shipped_model_speaks(tmp_path: Path) -> None:
    """One second of the demo by the model that comes with the project: another mouth, and nothing else."""
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) <= MOST_BYTES and (SHIPPED / "MODEL_CARD.md").is_file()
    video, sound, made = ROOT / "assets" / "demo1_video.mp4", tmp_path / "one second.wav", tmp_path / "made.mp4"
    with wave.open(str(ROOT / "assets" / "demo1_audio.wav")) as whole, wave.open(str(sound), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(whole.getframerate()))
    arguments = ["--unet_config_path", str(SHIPPED / "config.yaml"), "--detector", "mtcnn", "--device", "cpu", "--inference_steps", "2"]
    paths = ["--video_path", str(video), "--audio_path", str(sound), "--video_out_path", str(made)]
    assert inference([*paths, *arguments, "--lossless", "--quiet"]) == 0
    pairs = list(zip(VideoReader(made).frames(), VideoReader(video).frames(), strict=False))
    assert len(pairs) == 25
    apart = np.stack([np.abs(new.astype(int) - old).max(-1) for new, old in pairs])  # f h w
    assert (apart.max((1, 2)) > 20).all(), "every mouth is a new one"
    changed = (apart > 8).mean((1, 2))  # shares of the pictures
    assert changed.min() > 0.005 and changed.max() < 0.3
    assert not apart[:, :40].max() > 8 and not apart[:, :, -40:].max() > 8, "what lies away from the face stays"
