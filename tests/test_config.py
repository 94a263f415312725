"""Configurations: ours, the published ones, and what is refused in which words."""

import logging
from dataclasses import asdict
from pathlib import Path

import pytest

from latentsync.config import Config, UNetConfig, dump_config, load_config
from latentsync.errors import ConfigError
from latentsync.weights import CHECKPOINTS, VERSIONS, WEIGHTS

ROOT = Path(__file__).parents[1]
OURS = ROOT / "configs" / "unet"
PUBLISHED = Path(__file__).parent / "published_configs"
CHECKPOINT_OF = {version: ROOT / CHECKPOINTS / WEIGHTS[f"unet-{version}"].path for version in VERSIONS}

# What each of our files says beyond the defaults; a new difference between them belongs here too.
VALIDATION = {"data.val_video_path": ROOT / "assets/demo1_video.mp4", "data.val_audio_path": ROOT / "assets/demo1_audio.wav"}
UNREAD = {"sync_source": 0.0, "landmark_feature": 0.0, "temporal_feature": 0.0, "landmarks": 0.0}  # losses of this project alone
JUDGED = {
    **VALIDATION,
    "data.syncnet_config_path": ROOT / "configs/syncnet/syncnet_16_pixel_attn.yaml",
    "run.loss_weights": {"recon": 1.0, "sync": 0.05, "lpips": 0.1, "trepa": 10.0, **UNREAD},
    "run.trainable_modules": ["motion_modules.", "attentions."],
}
DIFFERENCES = {
    "stage1": {**VALIDATION, "model.use_motion_module": False},
    "stage1_512": {**VALIDATION, "data.resolution": 512, "model.use_motion_module": False},
    "stage2": {**JUDGED, "weights.unet": CHECKPOINT_OF["1.5"]},
    "stage2_512": {**JUDGED, "data.resolution": 512, "weights.unet": CHECKPOINT_OF["1.6"], "run.vae_slice_size": 1},
    "stage2_efficient": {
        **JUDGED,
        "model.motion_module_decoder_only": True,
        "run.loss_weights": {"recon": 1.0, "sync": 0.05, "lpips": 0.1, "trepa": 0.0, **UNREAD},
        "run.trainable_modules": ["motion_modules.", "attn2."],
    },
    "v1.0": {"model.use_motion_module": False, "weights.unet": CHECKPOINT_OF["1.0"]},
}
for name, differences in DIFFERENCES.items():
    if name != "v1.0":
        differences["data.train_output_dir"] = ROOT / "outputs" / f"unet_{name}"
TWIN = {"v1.0": "v1.0", "v1.5": "stage2", "v1.6": "stage2_512"}  # published version -> our file for it


def dotted(config: Config) -> dict:
    return {f"{section}.{key}": value for section, entries in asdict(config).items() for key, value in entries.items()}


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_our_files_differ_in_these_keys_only(caplog: pytest.LogCaptureFixture) -> None:
    defaults = dotted(Config())
    found = {}
    for path in OURS.glob("*.yaml"):
        values = dotted(load_config(path))
        found[path.stem] = {key: value for key, value in values.items() if value != defaults[key]}
    assert found == DIFFERENCES
    assert not caplog.records


@pytest.mark.parametrize("version", TWIN)
def test_published_file_loads_as_it_is_with_one_warning(version: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        published = load_config(PUBLISHED / f"{version}.yaml")
    ours = load_config(OURS / f"{TWIN[version]}.yaml")
    same = ("resolution", "num_frames", "audio_feat_length", "mask")
    assert [getattr(published.data, name) for name in same] == [getattr(ours.data, name) for name in same]
    assert published.model == ours.model
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    dead = ("data.audio_embeds_cache_dir", "data.audio_mel_cache_dir", "model.sample_size", "run.max_train_epochs")
    assert all(name in message for name in dead)
    assert not any(name in message for name in ("resolution", "batch_size", "loss_weight", "seed", "lr"))


def test_a_misspelt_key_gets_a_hint(tmp_path: Path) -> None:
    assert "'data.resolutoin'; did you mean 'data.resolution'?" in refusal(written(tmp_path, "data: {resolutoin: 256}"))
    assert "did you mean 'data.resolution'?" in refusal(written(tmp_path, "resolution: 256"))
    assert "did you mean 'optimizer.max_grad_norm'?" in refusal(written(tmp_path, "optimizer: {max_gradnorm: 1}"))
    assert "unknown key 'run.zebra'; remove it" in refusal(written(tmp_path, "run: {zebra: 1}"))
    assert "is a section" in refusal(written(tmp_path, "data: 5"))
    assert "config.yaml" in refusal(written(tmp_path, "data: {resolution: {x: 1}}"))


@pytest.mark.parametrize(
    "line",
    [
        "model: {attention_head_dim: 16}",
        "model: {in_channels: 9}",
        "model: {flip_sin_to_cos: 1}",
        "model: {motion_module_kwargs: {num_attention_heads: 4}}",
        "data: {video_fps: 30}",
        "data: {audio_sample_rate: 44100}",
    ],
)
def test_a_pinned_key_is_held_to_its_value(tmp_path: Path, line: str) -> None:
    assert "is built here" in refusal(written(tmp_path, line))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("data: {resolution: 260}", "data.resolution"),
        ("data: {resolution: big}", "data.resolution"),
        ("data: {resolution: 32}", "data.resolution"),
        ("data: {num_frames: 25}", "data.num_frames"),
        ("data: {num_frames: 1.5}", "data.num_frames"),
        ("data: {audio_feat_length: [2]}", "data.audio_feat_length"),
        ("data: {audio_feat_length: [-1, 2]}", "data.audio_feat_length"),
        ("data: {audio_feat_length: 2}", "data.audio_feat_length"),
        ("data: {mask: mouth}", "data.mask"),
        ("data: {mask_image_path: mouth}", "data.mask"),
        ("data: {mask: mask2, mask_image_path: a/mask3.png}", "data.mask_image_path"),
        ("model: {block_out_channels: [320, 640, 1280]}", "model.block_out_channels"),
        ("model: {block_out_channels: [24, 24, 24, 24], norm_num_groups: 8}", "model.block_out_channels"),
        ("model: {norm_num_groups: 0}", "model.norm_num_groups"),
        ("model: {use_motion_module: sometimes}", "model.use_motion_module"),
        ("weights: {unet: [1]}", "weights.unet"),
        ("data: {resolution: null}", "data.resolution"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(tmp_path: Path, line: str, key: str) -> None:
    message = refusal(written(tmp_path, line))
    assert f"'{key}'" in message
    assert "config.yaml" in message


def test_masks_of_published_files(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "data: {mask: fix_mask}")).data.mask == "mask"
    assert load_config(written(tmp_path, "data: {mask_image_path: a/b/mask4.png}")).data.mask == "mask4"
    assert load_config(written(tmp_path, "data: {mask: mask2.png}")).data.mask == "mask2"


def test_a_picture_as_mask_is_found_from_the_file_and_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = written(tmp_path, "data: {mask_image_path: a/own.png}")
    config = load_config(path)
    assert config.data.mask == str(tmp_path / "a" / "own.png")
    assert load_config(path, ["data.mask_image_path=own.png"]).data.mask == load_config(path, ["data.mask=own.png"]).data.mask
    assert load_config(path, ["data.mask=./own.png"]).data.mask == str(elsewhere / "own.png")
    assert load_config(path, ["data.mask=mask3"]).data.mask == "mask3"
    (elsewhere / "mask3.png").touch()  # a file of one's own wins over the published picture of that name
    assert load_config(path, ["data.mask=mask3.png"]).data.mask == str(elsewhere / "mask3.png")
    assert load_config(written(tmp_path, dump_config(config))).data.mask == config.data.mask


def test_motion_free_networks_may_be_narrower(tmp_path: Path) -> None:
    model = load_config(
        written(tmp_path, "model: {block_out_channels: [24, 24, 24, 24], norm_num_groups: 8, use_motion_module: false}")
    ).model
    assert model == UNetConfig(block_out_channels=[24] * 4, norm_num_groups=8, use_motion_module=False)


def test_overrides_win_and_are_checked() -> None:
    config = load_config(OURS / "stage2.yaml", ["data.resolution=512", "model.block_out_channels=[32,64,64,64]", "data.mask=mask3"])
    assert (config.data.resolution, config.model.block_out_channels, config.data.mask) == (512, [32, 64, 64, 64], "mask3")
    assert "did you mean 'data.resolution'?" in refusal(OURS / "stage2.yaml", "data.resolutio=512")
    assert "section.key=value" in refusal(OURS / "stage2.yaml", "data.resolution")
    assert "'data.resolution' is 100" in refusal(OURS / "stage2.yaml", "data.resolution=100")
    assert load_config(OURS / "stage2.yaml", ["data.batch_size=2"]).data.batch_size == 2
    assert "no effect" in refusal(OURS / "stage2.yaml", "data.audio_mel_cache_dir=cache")


def test_a_wrong_override_is_named_alone() -> None:
    """Whatever stands beside it; a rule that two values break together names the file."""
    path, right = OURS / "stage2.yaml", [f"run.loss_weights.{name}=0.5" for name in ("recon", "sync", "lpips")]
    for wrong, message in {
        "data.resolutio=512": "unknown key 'data.resolutio'; did you mean 'data.resolution'?",
        "data.resolution": "write it as section.key=value, such as data.resolution=512",
        "data.resolution=100": "'data.resolution' is 100, but it must be a multiple of 8, 64 or more",
        "data.audio_mel_cache_dir=x": "'data.audio_mel_cache_dir' has no effect here; leave it out",
        "data.num_frames=x": "'data.num_frames' cannot be 'x' (Value 'x' of type 'str' could not be converted to Integer)",
    }.items():
        assert refusal(path, *right, wrong, *right) == f"override '{wrong}': {message}"
    together = refusal(path, *right, "model.norm_num_groups=7")
    assert together.startswith(f"{path} with overrides: 'model.block_out_channels' is [320, 640, 1280, 1280], but it must be")
    assert load_config(path, ["data.num_frames=4", "data.num_frames=8"]).data.num_frames == 8


def test_weights_stand_beside_the_file_and_overrides_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = written(tmp_path, "weights: {unet: a.pt, vae: /b}")
    weights = load_config("../config.yaml", ["weights.whisper=c.pt"]).weights
    assert (weights.unet, weights.vae, weights.whisper) == (path.parent / "a.pt", Path("/b"), Path.cwd() / "c.pt")


def test_dump_is_read_back(tmp_path: Path) -> None:
    config = load_config(OURS / "stage2_512.yaml", ["data.num_frames=8"])
    assert load_config(written(tmp_path, dump_config(config))) == config


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.yaml")
    assert "cannot be read" in refusal(tmp_path)
    for text in (
        "",
        "just words",
        "- a\n- b",
        "data: [",
        "data: ${nowhere}",
        "data:\n\tresolution: 1",
        "a: !!python/object/apply:os.getcwd []",
    ):
        assert "config.yaml" in refusal(written(tmp_path, text))
    (tmp_path / "config.yaml").write_bytes(b"\x00\xff\xfe\x80" * 50)
    assert "valid YAML" in refusal(tmp_path / "config.yaml")
