"""Configurations of denoiser and SyncNet: ours, the published ones, and what is refused in which words."""

import gzip
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from latentsync.config import (
    Config,
    EncoderConfig,
    OptimizerConfig,
    SyncNetConfig,
    UNetConfig,
    current_keys,
    dump_config,
    load_config,
    load_syncnet_config,
)
from latentsync.errors import ConfigError
from latentsync.weights import CHECKPOINTS, VERSIONS, WEIGHTS

ROOT = Path(__file__).parents[1]
UNET, SYNCNET = ROOT / "configs" / "unet", ROOT / "configs" / "syncnet"
PUBLISHED = Path(__file__).parent / "published_configs"
MANIFESTS = Path(__file__).parent / "golden" / "manifests"
LOADERS = {Config: load_config, SyncNetConfig: load_syncnet_config}
CHECKPOINT_OF = {version: ROOT / CHECKPOINTS / WEIGHTS[f"unet-{version}"].path for version in VERSIONS}

# What each of our files says beyond the defaults; a new difference between them belongs here too.
VALIDATION = {"data.val_video_path": ROOT / "assets/demo1_video.mp4", "data.val_audio_path": ROOT / "assets/demo1_audio.wav"}
# Losses of this project alone
UNREAD = {
    "sync_source": 0.0,
    "landmark_feature": 0.0,
    "temporal_feature": 0.0,
    "landmarks": 0.0,
    "lips": 0.0,
}  # losses of this project alone
STAGE2 = {
    **VALIDATION,
    "data.syncnet_config_path": ROOT / "configs/syncnet/syncnet_16_pixel_attn.yaml",
    "run.loss_weights": {"recon": 1.0, "sync": 0.05, "lpips": 0.1, "trepa": 10.0, **UNREAD},
    "run.trainable_modules": ["motion_modules.", "attentions."],
}
DIFFERENCES = {
    "stage1": {**VALIDATION, "model.use_motion_module": False},
    "stage1_512": {**VALIDATION, "data.resolution": 512, "model.use_motion_module": False},
    "stage2": {**STAGE2, "weights.unet": CHECKPOINT_OF["1.5"]},
    "stage2_512": {**STAGE2, "data.resolution": 512, "weights.unet": CHECKPOINT_OF["1.6"], "run.vae_slice_size": 1},
    "stage2_efficient": {
        **STAGE2,
        "model.motion_module_decoder_only": True,
        "run.loss_weights": {"recon": 1.0, "sync": 0.05, "lpips": 0.1, "trepa": 0.0, **UNREAD},
        "run.trainable_modules": ["motion_modules.", "attn2."],
    },
    "v1.0": {"model.use_motion_module": False, "weights.unet": CHECKPOINT_OF["1.0"]},
}
for name, differences in DIFFERENCES.items():
    if name != "v1.0":
        differences["data.train_output_dir"] = ROOT / "outputs" / f"unet_{name}"
OUR_FILE = {"v1.0": "v1.0", "v1.5": "stage2", "v1.6": "stage2_512"}  # published version -> our file for it

# What each of our SyncNet files says beyond the defaults; its sizes are compared with the published ones instead.
SYNCNET_DIFFERENCES = {
    "syncnet_16_pixel_attn": {},
    "syncnet_16_pixel": {},
    "syncnet_16_latent": {"data.latent_space": True, "data.lower_half": False},
    "syncnet_25_pixel": {"data.num_frames": 25},
    "wav2lip": {"data.num_frames": 5},
}
PUBLISHED_SIZES = [name for name in SYNCNET_DIFFERENCES if name != "wav2lip"]  # that one's size is its class's
IN_ALL = {"run.gradient_accumulation_steps": 4, "run.num_val_clips": 2048, "ckpt.save_ckpt_steps": 2500}


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def refusal(kind: type, path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        LOADERS[kind](path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def dotted(config: Config) -> dict:
    return {f"{section}.{key}": value for section, entries in asdict(config).items() for key, value in entries.items()}


def test_our_files_differ_in_these_keys_only(caplog: pytest.LogCaptureFixture) -> None:
    defaults = dotted(Config())
    found = {}
    for path in UNET.glob("*.yaml"):
        values = dotted(load_config(path))
        found[path.stem] = {key: value for key, value in values.items() if value != defaults[key]}
        named = [values[f"data.{key}"] for key in ("syncnet_config_path", "val_video_path", "val_audio_path")]
        assert all(file is None or file.is_file() for file in named)
    assert found == DIFFERENCES
    assert not caplog.records


@pytest.mark.parametrize("version", OUR_FILE)
def test_published_file_loads_as_it_is_with_one_warning(version: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        published = load_config(PUBLISHED / f"{version}.yaml")
    ours = load_config(UNET / f"{OUR_FILE[version]}.yaml")
    same = ("resolution", "num_frames", "audio_feat_length", "audio_feat_limit", "mask")
    assert [getattr(published.data, name) for name in same] == [getattr(ours.data, name) for name in same]
    assert published.model == ours.model
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    dead = ("data.audio_embeds_cache_dir", "data.audio_mel_cache_dir", "model.sample_size", "run.max_train_epochs")
    assert all(name in message for name in dead)
    assert not any(name in message for name in ("resolution", "batch_size", "loss_weight", "seed", "lr"))


def test_a_picture_as_mask_is_found_from_the_file_and_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, mask in {"mask: fix_mask": "mask", "mask_image_path: a/b/mask4.png": "mask4", "mask: mask2.png": "mask2"}.items():
        assert load_config(written(tmp_path, f"data: {{{line}}}")).data.mask == mask
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
    text = "model: {block_out_channels: [24, 24, 24, 24], norm_num_groups: 8, use_motion_module: false}"
    assert load_config(written(tmp_path, text)).model == UNetConfig([24] * 4, norm_num_groups=8, use_motion_module=False)


def test_overrides_win_and_a_wrong_one_is_named_alone() -> None:
    """Whatever stands beside it; a rule that two values break together names the file."""
    path, right = UNET / "stage2.yaml", [f"run.loss_weights.{name}=0.5" for name in ("recon", "sync", "lpips")]
    config = load_config(path, ["data.resolution=512", "model.block_out_channels=[32,64,64,64]", "data.mask=mask3", "data.batch_size=2"])
    assert (config.data.resolution, config.model.block_out_channels, config.data.mask) == (512, [32, 64, 64, 64], "mask3")
    for wrong, message in {
        "data.resolutio=512": "unknown key 'data.resolutio'; did you mean 'data.resolution'?",
        "data.resolution": "write it as section.key=value, such as data.resolution=512",
        "data.resolution=100": "'data.resolution' is 100, but it must be a multiple of 8, 64 or more",
        "data.audio_mel_cache_dir=x": "'data.audio_mel_cache_dir' has no effect here; leave it out",
        "data.num_frames=x": "'data.num_frames' cannot be 'x' (Value 'x' of type 'str' could not be converted to Integer)",
    }.items():
        assert refusal(Config, path, *right, wrong, *right) == f"override '{wrong}': {message}"
    together = refusal(Config, path, *right, "model.norm_num_groups=7")
    assert together.startswith(f"{path} with overrides: 'model.block_out_channels' is [320, 640, 1280, 1280], but it must be")
    assert load_config(path, ["data.num_frames=4", "data.num_frames=8"]).data.num_frames == 8


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(Config, tmp_path / "absent.yaml")
    assert "cannot be read" in refusal(Config, tmp_path)
    for text in (
        "",
        "just words",
        "- a\n- b",
        "data: [",
        "data: ${nowhere}",
        "data:\n\tresolution: 1",
        "a: !!python/object/apply:os.getcwd []",
    ):
        assert "config.yaml" in refusal(Config, written(tmp_path, text))
    (tmp_path / "config.yaml").write_bytes(b"\x00\xff\xfe\x80" * 50)
    assert "valid YAML" in refusal(Config, tmp_path / "config.yaml")


def test_our_syncnet_files_differ_in_these_keys_only(caplog: pytest.LogCaptureFixture) -> None:
    defaults = asdict(SyncNetConfig())
    found = {}
    for path in (SYNCNET / f"{name}.yaml" for name in SYNCNET_DIFFERENCES):
        config = asdict(load_syncnet_config(path))
        assert config["data"].pop("train_output_dir") == ROOT / "outputs" / path.stem
        sections = ("data", "weights", "run", "optimizer", "ckpt")
        values = {f"{name}.{key}": (value, defaults[name][key]) for name in sections for key, value in config[name].items()}
        found[path.stem] = {key: value for key, (value, default) in values.items() if value != default}
    assert found == {name: IN_ALL | differences for name, differences in SYNCNET_DIFFERENCES.items()}
    assert not caplog.records


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_our_syncnet_files_have_the_published_sizes(name: str) -> None:
    manifest = json.loads(gzip.decompress((MANIFESTS / f"syncnet_v16_{name}.json.gz").read_bytes()))
    model = load_syncnet_config(SYNCNET / f"{name}.yaml").model
    assert asdict(model) == manifest["config"] | {"network": "stable"}
    if name == "syncnet_16_pixel_attn":  # the default; attention stays where an override changes widths alone
        assert model == SyncNetConfig().model
        narrower = ["model.audio_encoder.block_out_channels=[32, 32, 64, 64, 64, 64, 2048]"]
        assert sum(load_syncnet_config(SYNCNET / f"{name}.yaml", narrower).model.audio_encoder.attn_blocks) == 2


def test_the_syncnet_of_the_ablation_has_one_size() -> None:
    path = SYNCNET / "wav2lip.yaml"
    assert load_syncnet_config(path).model.network == "wav2lip"
    assert "'data.num_frames' is 16, but it must be 5, because" in refusal(SyncNetConfig, path, "data.num_frames=16")
    assert "'data.lower_half' is False" in refusal(SyncNetConfig, path, "data.lower_half=false")
    assert "'model.network' is 'wave', but it must be one of stable, wav2lip" in refusal(SyncNetConfig, path, "model.network=wave")


@pytest.mark.parametrize(("version", "seconds"), [("v1.0", []), ("v1.5", ["motion_modules.", "attentions."])])
def test_training_keys_of_a_published_file(version: str, seconds: list[str]) -> None:
    config = load_config(PUBLISHED / f"{version}.yaml")
    assert config.run.loss_weights == {"recon": 1.0, "sync": 0.05, "lpips": 0.1, "trepa": 10.0, **UNREAD}
    assert (config.run.mixed_precision, config.run.trainable_modules, config.run.seed) == ("fp16", seconds, 1247)
    assert config.run.enable_gradient_checkpointing == (version != "v1.0")
    assert config.run.guidance_scale == (1.0 if version == "v1.0" else 1.5)
    assert config.optimizer == OptimizerConfig()
    assert (config.data.batch_size, config.data.num_workers) == (2 if version == "v1.0" else 1, 12)
    assert (config.data.train_data_dir, config.data.train_fileslist) == (None, Path("/data/fileslist.txt"))
    assert config.ckpt.resume_ckpt_path == PUBLISHED / "checkpoints/latentsync_unet.pt"


def test_published_syncnet_file(caplog: pytest.LogCaptureFixture) -> None:
    config = load_syncnet_config(PUBLISHED / "syncnet_25_pixel.yaml")
    assert config.model == load_syncnet_config(SYNCNET / "syncnet_25_pixel.yaml").model  # completed: no attention
    assert (config.run.gradient_accumulation_steps, config.run.num_val_clips, config.run.mixed_precision) == (2, 2048, "fp16")
    assert (config.ckpt.resume_ckpt_path, config.data.val_fileslist) == (None, Path("/data/val.txt"))
    assert (config.data.batch_size, config.data.num_frames, config.run.validation_steps) == (64, 25, 2500)
    assert [record.getMessage().partition("here: ")[2] for record in caplog.records] == [
        "ckpt.inference_ckpt_path, data.audio_mel_cache_dir"
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{pixel_space_supervise: false, sync_loss_weight: 0.05, recon_loss_weight: 2, trepa_loss_weight: 10}", (2, 0, 0, 0)),
        ("{use_syncnet: false, sync_loss_weight: 0.05, perceptual_loss_weight: 0.1}", (1, 0, 0.1, 0)),
        ("{use_syncnet: true, pixel_space_supervise: true, sync_loss_weight: 0.05}", (1, 0.05, 0, 0)),
        ("{loss_weights: {trepa: 3}, trepa_loss_weight: 3.0}", (1, 0, 0, 3)),
        ("{loss_weights: {}}", (1, 0, 0, 0)),
    ],
)
def test_published_weights_and_switches(tmp_path: Path, line: str, expected: tuple[float, ...]) -> None:
    config = load_config(written(tmp_path, f"run: {line}"))
    assert tuple(config.run.loss_weights[name] for name in ("recon", "sync", "lpips", "trepa")) == expected


def test_precision_and_trainable_parts_may_be_spelt_in_several_ways(tmp_path: Path) -> None:
    for line in ("mixed_precision_training: false", "mixed_precision: no", "mixed_precision: 'no'"):
        assert load_config(written(tmp_path, f"run: {{{line}}}")).run.mixed_precision == "no"
    for value in ("null", "[]", "[null]", "['']"):
        assert load_config(written(tmp_path, f"run: {{trainable_modules: {value}}}")).run.trainable_modules == []


def test_old_spellings_are_read_with_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """
    data: {counterfactual: true}
    weights: {mouth_reader: a.pt}
    run: {coarse_noise: 0.3, noisy_share: 0.5, noisy_weight: 25, loss_weights: {reader: 0.1, reader_motion: 1, reader_points: 0.2}}
    """
    config = load_config(written(tmp_path, text), ["run.noisy_weight=5"])
    run, weights = config.run, config.run.loss_weights
    assert (config.data.counterfactual_pairs, config.weights.landmark_network) == (True, tmp_path / "a.pt")
    assert (run.low_frequency_noise, run.timestep_bias, run.x0_weighting) == (0.3, 0.5, 5)
    assert (weights["landmark_feature"], weights["temporal_feature"], weights["landmarks"]) == (0.1, 1, 0.2)
    assert load_syncnet_config(written(tmp_path, "run: {loss_weights: {contrast: 0.5}}")).run.loss_weights["infonce"] == 0.5
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 10 and "'data.counterfactual' is called 'data.counterfactual_pairs' now" in told[0]
    both = written(tmp_path, "data: {counterfactual: true, counterfactual_pairs: true}")
    assert "is the old name of 'data.counterfactual_pairs'" in refusal(Config, both)


UNET_REFUSALS = [
    ("data: {resolutoin: 256}", "'data.resolutoin'; did you mean 'data.resolution'?"),
    ("resolution: 256", "did you mean 'data.resolution'?"),
    ("run: {zebra: 1}", "unknown key 'run.zebra'; remove it"),
    ("model: {flip_sin_to_cos: 1}", "'model.flip_sin_to_cos' is 1, but only True is built here"),
    ("model: {motion_module_kwargs: {num_attention_heads: 4}}", "is built here"),
    ("optimizer: {scale_lr: true}", "only False is built here"),
    ("data: {resolution: big}", "'data.resolution' cannot be 'big'"),
    ("data: {resolution: 32}", "'data.resolution' is 32, but it must be a multiple of 8, 64 or more"),
    ("data: {num_frames: 25}", "'data.num_frames'"),
    ("data: {audio_feat_length: [-1, 2]}", "'data.audio_feat_length'"),
    ("data: {mask_image_path: mouth}", "'data.mask'"),
    ("data: {mask: mask2, mask_image_path: a/mask3.png}", "'data.mask_image_path'"),
    ("model: {block_out_channels: [320, 640, 1280]}", "'model.block_out_channels'"),
    ("model: {block_out_channels: [24, 24, 24, 24], norm_num_groups: 8}", "'model.block_out_channels'"),
    ("model: {norm_num_groups: 0}", "'model.norm_num_groups'"),
    ("weights: {unet: [1]}", "'weights.unet'"),
    ("run: {loss_weights: 5}", "'run.loss_weights' is a section"),
    ("run: {loss_weights: {sync: -1}}", "'run.loss_weights.sync' is -1.0"),
    ("run: {loss_weights: {recon: 0}}", "'run.loss_weights' is"),
    ("run: {loss_weights: {sync: 1}, use_syncnet: false}", "'run.use_syncnet' and 'run.loss_weights.sync' say different things"),
    ("run: {loss_weights: {sync: 1}, sync_loss_weight: 2}", "say different things"),
    ("run: {use_syncnet: 3}", "'run.use_syncnet' is 3, but it must be true or false"),
    ("run: {mixed_precision: fp8}", "one of auto, bf16, fp16, no"),
    ("run: {ema_decay: 1}", "'run.ema_decay' is 1.0"),
    ("run: {inference_steps: 0}", "between 1 and 1000"),
    ("run: {trainable_modules: motion}", "'run.trainable_modules'"),
    ("data: {batch_size: 0}", "'data.batch_size' is 0, but it must be 1 or more"),
    ("data: {val_video_path: a.mp4}", "'data.val_audio_path' is None, but it must be set together with 'data.val_video_path'"),
    ("data: {train_data_dir: ~nobody_of_this_name/x}", "'data.train_data_dir'"),
    ("optimizer: {lr: 0}", "'optimizer.lr' is 0.0"),
    ("optimizer: {lr_scheduler: cosin}", "one of constant"),
    ("videomae: {width: 30}", "a multiple of videomae.num_heads, which is 16"),
    ("videomae: {patch_size: 0}", "'videomae.patch_size' is 0"),
    ("model: {audio_encoder: {in_channels: 1}}", "is a key of SyncNet"),
]
SYNCNET_REFUSALS = [
    ("data: {resolution: 100}", "'data.resolution' is 100"),
    ("data: {num_frames: 25}", "'model.visual_encoder.in_channels' is 48, but it must be 75"),
    ("data: {latent_space: true}", "but it must be 64: 4, the channels of a latent"),
    ("run: {loss_weights: {recon: 1}}", "unknown key 'run.loss_weights.recon'"),
    ("model: {audio_encoder: {in_channels: 3}}", "'model.audio_encoder.in_channels' is 3"),
    ("model: {audio_encoder: {block_out_channels: []}}", "'model.audio_encoder.block_out_channels' is []"),
    ("model: {audio_encoder: {block_out_channels: [32, 48, 64, 64, 64, 64, 2048]}}", "each a multiple of 32"),
    ("model: {audio_encoder: {downsample_factors: [2, 2]}}", "as long as model.audio_encoder.block_out_channels, 7"),
    ("model: {visual_encoder: {downsample_factors: [[1, 2, 3], 2, 2, 2, 2, 2, 2, 2]}}", "two of them for height and width"),
    ("model: {visual_encoder: {attn_blocks: [0, 1]}}", "as long as model.visual_encoder.block_out_channels, 8"),
    ("model: {visual_encoder: {attn_blocks: [2, 0, 0, 0, 0, 0, 0, 0]}}", "1 for a block of attention"),
    ("model: {visual_encoder: {dropout: 1}}", "'model.visual_encoder.dropout'"),
    ("model: {visual_encoder: {block_out_channels: [64, 128, 256, 256, 512, 1024, 2048, 1024]}}", "with [2048]"),
    ("model: {cross_attention_dim: 384}", "is a key of the denoiser"),
]


@pytest.mark.parametrize(
    ("kind", "line", "says"), [(Config, *entry) for entry in UNET_REFUSALS] + [(SyncNetConfig, *entry) for entry in SYNCNET_REFUSALS]
)
def test_a_value_that_cannot_be_is_refused(tmp_path: Path, kind: type, line: str, says: str) -> None:
    message = refusal(kind, written(tmp_path, line))
    assert says in message and "config.yaml" in message


def test_single_losses_and_lists_can_be_overridden() -> None:
    overrides = ["run.loss_weights.sync=0.1", "run.trainable_modules=[attn2., conv_in]", "optimizer.lr=2e-5", "data.audio_dropout=0.1"]
    config = load_config(UNET / "stage2.yaml", overrides)
    assert config.run.loss_weights == {"recon": 1.0, "sync": 0.1, "lpips": 0.1, "trepa": 10.0, **UNREAD}
    assert config.run.trainable_modules == ["attn2.", "conv_in"]
    assert (config.optimizer.lr, config.data.audio_dropout) == (2e-5, 0.1)
    assert load_config(UNET / "stage2.yaml", ["run.loss_weights={lpips: 0.3}"]).run.loss_weights["lpips"] == 0.3
    assert "did you mean 'run.loss_weights.lpips'?" in refusal(Config, UNET / "stage2.yaml", "run.loss_weights.lpisp=1")


def test_paths_of_every_section_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written(tmp_path, "data: {train_data_dir: clips, cache_dir: ''}\nckpt: {resume_ckpt_path: ../a.pt}\nweights: {vae: vae}")
    for load in LOADERS.values():
        config = load("../config.yaml", ["data.val_fileslist=held_out.txt"])
        assert (config.data.train_data_dir, config.data.cache_dir) == (tmp_path / "clips", None)
        assert config.data.val_fileslist == tmp_path / "elsewhere" / "held_out.txt"
        assert (config.ckpt.resume_ckpt_path, config.weights.vae) == (tmp_path.parent / "a.pt", tmp_path / "vae")
    assert load_config(UNET / "stage2.yaml", ["data.train_output_dir=null"]).data.train_output_dir is None


def test_dumps_are_read_back(tmp_path: Path) -> None:
    overrides = ["run.loss_weights.sync=0.2", "run.mixed_precision=no", "data.train_data_dir=clips"]
    for path, load in (*((path, load_config) for path in UNET.glob("*")), *((path, load_syncnet_config) for path in SYNCNET.glob("*"))):
        config = load(path, overrides)
        assert load(written(tmp_path, dump_config(config))) == config


def test_a_small_syncnet_is_a_few_lines(tmp_path: Path) -> None:
    text = """
    data: {num_frames: 5, resolution: 64}
    model:
      audio_encoder: {block_out_channels: [32, 64], downsample_factors: [[2, 1], 4]}
      visual_encoder: {in_channels: 15, block_out_channels: [32, 64], downsample_factors: [2, 2], attn_blocks: [0, 1]}
    """
    model = load_syncnet_config(written(tmp_path, text)).model
    assert model.audio_encoder == EncoderConfig(1, [32, 64], [[2, 1], 4], [0, 0])
    assert model.visual_encoder == replace(model.audio_encoder, in_channels=15, downsample_factors=[2, 2], attn_blocks=[0, 1])


def test_every_key_is_explained() -> None:
    explained = "".join((ROOT / "docs" / name).read_text() for name in ("configs.md", "embedded.md"))
    for kind in LOADERS:
        for key in current_keys(kind):
            encoder, _, name = key.rpartition("_encoder.")
            key = key.rpartition(".")[0] if key.startswith("run.loss_weights.") else key
            assert f"`{key}`" in explained or (encoder and f"`….{name}`" in explained), key
