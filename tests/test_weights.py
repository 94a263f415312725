"""Weight files: the table, safe reading, strict loading with sentences that help, the start from Stable Diffusion, the download."""

import logging
import os
import pickle
import shutil
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.write_random_checkpoint import WHISPER_MINUTE, random_weights, unet_config, vae_config, write_unet, write_vae, write_whisper
from latentsync import weights
from latentsync.app import models as app_models
from latentsync.config import UNetConfig
from latentsync.constants import MAX_FRAMES
from latentsync.errors import WeightsError
from latentsync.models.attention import position_table
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import load_unet, plan_start, refuse_misfits, start_from_stable_diffusion
from latentsync.pipelines import build
from scripts import download_weights
from scripts import weights as command

BASE = {"vae", "vae-config", "whisper-tiny", "s3fd", "2dfan4"}
FOR_TRAINING = {name for name, weight in weights.WEIGHTS.items() if weight.training}


class Program:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def meta_weights(config):
    """Names and shapes without memory."""
    with torch.device("meta"):
        return UNet3DConditionModel(config).state_dict()


def sentence_of(call, *args):
    with pytest.raises(WeightsError) as caught:
        call(*args)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


def test_each_missing_file_is_one_line(tmp_path):
    lines = weights.missing_weights(tmp_path)
    assert lines.keys() == weights.WEIGHTS.keys()
    assert "ByteDance/LatentSync-1.6" in lines["unet-1.6"] and str(tmp_path / "latentsync-1.6/latentsync_unet.pt") in lines["unet-1.6"]
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper/tiny.pt").write_bytes(b"x")
    assert weights.missing_weights(tmp_path, versions=["1.5"]).keys() == lines.keys() - {"whisper-tiny", "unet-1.6", "unet-1.0"}


@pytest.mark.parametrize("step", [7, None])
@pytest.mark.parametrize("kind", ["safetensors", "zipped", "legacy"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_content_tells_what_a_file_is(tmp_path, kind, step, name):
    state = {"a.weight": torch.arange(6.0).view(2, 3).half()}
    if kind == "safetensors":
        step = save_file(state, tmp_path / name)
    else:
        saved = {"global_step": step, "state_dict": state} if step else state
        torch.save(saved, tmp_path / name, _use_new_zipfile_serialization=kind == "zipped")
    read, found = weights.read_state_dict(tmp_path / name)
    assert read.keys() == state.keys() and torch.equal(read["a.weight"], state["a.weight"]) and read["a.weight"].dtype == torch.float16
    assert found == step


OWN, MEAN = {"a.weight": torch.ones(2), "b.bias": torch.zeros(3)}, {"a.weight": torch.full((2,), 5.0), "b.bias": torch.ones(3)}
MOMENTS = {"state": {0: {"exp_avg": torch.ones(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]}


def behind(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("saved", "expected", "told"),
    [
        ({"model": OWN, "optimizer": MOMENTS, "epoch": 3}, OWN, ""),
        ({"module": OWN}, OWN, ""),
        ({"state_dict": {"model": OWN}}, OWN, ""),
        ({"netG": OWN, "optimizer_state_dict": MOMENTS}, OWN, ""),
        ({**OWN, "epoch": 3}, OWN, ""),
        ({"state_dict": behind("model.diffusion_model.", OWN)}, OWN, "'model.diffusion_model.'"),
        (behind("module.", OWN), OWN, "taken off"),
        ({"module.a": OWN["a.weight"], "b": OWN["b.bias"]}, {"module.a": OWN["a.weight"], "b": OWN["b.bias"]}, ""),
        (behind("module._orig_mod.", OWN), OWN, "'_orig_mod.'"),
        (behind("_orig_mod.module.", OWN), OWN, "'_orig_mod.'"),
        (behind("unet.", OWN), OWN, "'unet.'"),
        ({**behind("unet.", OWN), **behind("vae.", MEAN)}, OWN, "2 entries of other networks left out"),
        ({"a._orig_mod.weight": OWN["a.weight"], "b.bias": OWN["b.bias"]}, OWN, ""),
        ({"ema": MEAN}, MEAN, ""),
        ({"state_dict": OWN, "ema": MEAN, "global_step": 1}, MEAN, "the average is taken"),
        ({"model": behind("module.", OWN), "ema": {"decay": 0.99, "shadow": MEAN}}, MEAN, "the average is taken"),
        ({**OWN, **behind("ema.", MEAN), "ema.decay": torch.tensor(0.99)}, MEAN, "the average is taken"),
        ({"n_averaged": torch.tensor(9), **behind("module.", OWN)}, OWN, "'module.'"),
        (
            {"state_dict": {**OWN, **{f"model_ema.{key.replace('.', '')}": value for key, value in MEAN.items()}}},
            OWN,
            "names of the average",
        ),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_other_programs_put_around_weights_is_taken_off(tmp_path, caplog, saved, expected, told, zipped):
    torch.save(saved, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    read, _ = weights.read_state_dict(tmp_path / "x.pt", part=("unet.",))
    assert read.keys() == expected.keys() and all(torch.equal(read[key], value) for key, value in expected.items())
    assert told in caplog.text and bool(told) == bool(caplog.records)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ({"attn2.to_q.lora_A.weight": torch.ones(1), "attn2.to_q.lora_B.weight": torch.ones(1)}, "holds a LoRA"),
        ({"state_dict": {"lora_unet_mid_attn2.lora_up.weight": torch.ones(1), "lora_unet_mid_attn2.alpha": torch.ones(1)}}, "holds a LoRA"),
        ({"unet.attn2.processor.to_q_lora.down.weight": torch.ones(1)}, "holds a LoRA"),
        (MOMENTS, "state of an optimizer"),
        ({"netG": OWN, "netD": MEAN}, "holds 'netG', 'netD' but no plain dictionary"),
    ],
)
def test_what_is_no_network_is_named(tmp_path, saved, told):
    torch.save(saved, tmp_path / "x.pt")
    assert told in sentence_of(weights.read_state_dict, tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_a_program_is_refused_and_not_run(tmp_path, zipped):
    ran = tmp_path / "ran"
    program = {"state_dict": Program(f"touch {ran}")}
    torch.save(program, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(program, protocol=2))
    assert "refused" in sentence_of(weights.read_checkpoint, tmp_path / "evil.pt")
    assert "evil.pth" in sentence_of(weights.read_checkpoint, tmp_path / "evil.pth")
    assert not ran.exists()
    pickle.loads((tmp_path / "evil.pth").read_bytes())
    assert ran.exists()  # a careless reader would have run it


def test_files_that_are_no_checkpoint_are_one_sentence(tmp_path):
    def refusal(name, content=b""):
        (tmp_path / name).write_bytes(content)
        sentence = sentence_of(weights.read_state_dict, tmp_path / name)
        assert name in sentence
        return sentence

    torch.save({"a": torch.zeros(5000)}, tmp_path / "whole.pt")
    torch.save({"a": torch.zeros(5000)}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(5000)}, tmp_path / "whole.safetensors")
    assert "is empty" in refusal("empty.pt")
    assert "is a web page" in refusal("page.pt", b"<!DOCTYPE html><title>404</title>" * 9)
    assert "is a web page" in refusal("page.safetensors", b"\n <html><title>Sign in</title>" * 9)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5065424654\n"
    assert "git lfs pull" in refusal("pointer.pt", pointer) and "git lfs pull" in refusal("pointer.safetensors", pointer)
    assert "unpack it" in refusal("packed.pt", b"\x1f\x8b\x08\x00" + bytes(99))
    assert "is a JSON text" in refusal("config.json", b'{"sample_size": 256}')
    index = b'{"metadata": {}, "weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}'
    assert "index of a checkpoint in 2 files (m-1-of-2.safetensors" in refusal("model.safetensors.index.json", index)
    with ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("latentsync_unet.pt", b"x" * 99)
    assert "ZIP archive of other files" in refusal("other.pt", (tmp_path / "other.zip").read_bytes())
    with ZipFile(tmp_path / "program.zip", "w") as archive:
        for name in ("constants.pkl", "data.pkl", "code/__torch__.py"):
            archive.writestr(f"net/{name}", b"x")
    assert "TorchScript program" in refusal("program.pt", (tmp_path / "program.zip").read_bytes())
    assert "is not a checkpoint" in refusal("noise.pt", bytes(range(7, 200)) * 30)
    for whole in ("whole.pt", "legacy.pt", "whole.safetensors"):
        content = (tmp_path / whole).read_bytes()
        for share in (0.02, 0.5, 0.99):
            assert "cut short or damaged" in refusal("cut-" + whole, content[: int(len(content) * share)])
    assert "is a folder" in sentence_of(weights.read_checkpoint, tmp_path)
    assert "does not exist" in sentence_of(weights.read_checkpoint, tmp_path / "none.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "holds Tensor data" in sentence_of(weights.read_checkpoint, tmp_path / "tensor.pt")
    torch.save({"lr": 1e-3, "steps": [1, 2]}, tmp_path / "numbers.pt")
    assert "holds 'lr', 'steps' but no plain dictionary of tensors" in sentence_of(weights.read_state_dict, tmp_path / "numbers.pt")


def test_strict_loading_counts_and_names_what_does_not_fit():
    module = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 4), "extra": torch.ones(1)}
    sentence = sentence_of(weights.load_strict, module, state, "x.pt", "do this")
    expected = "1 missing (such as bias), 1 unexpected (such as extra), 1 of another shape (such as weight [3, 4] instead of [3, 2])"
    assert sentence == f"x.pt does not fit Linear: of 2 entries {expected}; do this."


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Tiny files of every published kind, by stage."""
    folder = tmp_path_factory.mktemp("unets")
    for stage in ("stage1", "stage2", "stage2_efficient", "v1.0"):
        write_unet(folder / f"{stage}.pt", unet_config(stage, tiny=True), seed=5, version="1.0" if stage == "v1.0" else "1.6")
    return {path.stem: path for path in folder.iterdir()}


@torch.no_grad()
@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage2_efficient", "v1.0"])
def test_each_published_kind_loads(files, stage):
    half = load_unet(unet_config(stage, tiny=True), files[stage], torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    model = load_unet(unet_config(stage, tiny=True), files[stage])
    out = model(torch.randn(1, 13, 2, 8, 8), 400, torch.randn(2, 50, 64))
    assert out.isfinite().all() and out.std() > 0.05
    assert not model.training


def test_version_10_differs_in_names_alone(files):
    raw = weights.read_state_dict(files["v1.0"])[0]
    assert any(".audio_cross_attn.attn.to_k." in key for key in raw) and not any(".attn2." in key for key in raw)
    config = unet_config("stage1", tiny=True)
    old, new = load_unet(config, files["v1.0"]).state_dict(), load_unet(config, files["stage1"]).state_dict()
    assert all(torch.equal(old[key], new[key]) for key in new)


@pytest.mark.parametrize(
    ("held", "asked", "parts"),
    [
        ("v1.0", "stage2", ["of version 1.0 with no attention along time", "in all layers", "configs/unet/v1.0.yaml"]),
        ("stage1", "stage2", ["with no attention along time where", "configs/unet/stage1.yaml"]),
        ("stage2", "stage1", ["attention along time in all layers where", "asks for no attention along time", "configs/unet/stage2.yaml"]),
        ("stage2_efficient", "stage2", ["in the up path only where", "configs/unet/stage2_efficient.yaml"]),
        ("stage2", "stage2_efficient", ["asks for attention along time in the up path only", "motion_module_decoder_only=false"]),
    ],
)
def test_a_file_of_another_stage_names_the_configuration_to_use(files, held, asked, parts):
    sentence = sentence_of(load_unet, unet_config(asked, tiny=True), files[held])
    assert all(part in sentence for part in [str(files[held]), *parts]), sentence


def test_other_sizes_name_the_setting(files):
    sentence = sentence_of(load_unet, UNetConfig(), files["stage2"])
    assert "widths [32, 32, 32, 32]" in sentence and "asks for widths [320, 640, 1280, 1280]" in sentence
    assert "set model.block_out_channels=[32, 32, 32, 32], model.layers_per_block=1, model.cross_attention_dim=64." in sentence
    small = meta_weights(UNetConfig(cross_attention_dim=768))
    sentence = sentence_of(refuse_misfits, UNetConfig(), small, "small.pt")
    assert "768-wide audio tokens (Whisper small) where the configuration asks for 384-wide audio tokens (Whisper tiny)" in sentence
    assert sentence.endswith("set model.cross_attention_dim=768.")


def test_files_of_other_networks_are_named(tmp_path, files):
    config = unet_config(tiny=True)
    write_vae(tmp_path / "vae", vae_config(tiny=True))
    assert "holds a VAE" in sentence_of(load_unet, config, tmp_path / "vae/diffusion_pytorch_model.safetensors")
    torch.save(
        {"global_step": 1, "state_dict": {"visual_encoder.conv_in.weight": torch.ones(1)}, "train_loss_list": []}, tmp_path / "sync.pt"
    )
    assert "holds a SyncNet" in sentence_of(load_unet, config, tmp_path / "sync.pt")
    write_whisper(tmp_path / "tiny.pt", WHISPER_MINUTE)
    assert "tiny.pt" in sentence_of(load_unet, config, tmp_path / "tiny.pt")
    torch.save({"fc.weight": torch.ones(1)}, tmp_path / "other.pt")
    assert "holds no U-Net (its first entry is 'fc.weight')" in sentence_of(load_unet, config, tmp_path / "other.pt")
    state = weights.read_state_dict(files["stage2"])[0]
    del state["conv_out.bias"]
    torch.save(state, tmp_path / "lacks.pt")
    assert "1 missing (such as conv_out.bias)" in sentence_of(load_unet, config, tmp_path / "lacks.pt")


@pytest.mark.parametrize("length", [16, 32])
def test_position_tables_of_another_length_are_rebuilt(tmp_path, files, length):
    state = weights.read_state_dict(files["stage2"])[0]
    state = {key: torch.full((1, length, value.shape[-1]), 9.0) if key.endswith(".pe") else value for key, value in state.items()}
    torch.save({"global_step": 1, "state_dict": state}, tmp_path / "x.pt")
    tables = [value for key, value in load_unet(unet_config(tiny=True), tmp_path / "x.pt").state_dict().items() if key.endswith(".pe")]
    assert len(tables) == 24 and all(torch.equal(table, position_table(MAX_FRAMES, 32)) for table in tables)


def stable_diffusion(config, audio_dim):
    """Names and shapes of a 2-D U-Net of the same widths, conditioned on text."""
    state = meta_weights(UNetConfig(config.block_out_channels, config.layers_per_block, 32, audio_dim, use_motion_module=False))
    return {**state, "conv_in.weight": torch.empty(config.block_out_channels[0], 4, 3, 3, device="meta")}


@pytest.mark.parametrize(("stage", "initialised"), [("stage1", 32), ("stage2", 32 + 560)])
def test_counts_at_full_size(stage, initialised):
    given = stable_diffusion(UNetConfig(), audio_dim=768)
    report = plan_start(meta_weights(unet_config(stage)), given, "sd.pt")
    assert (len(report.kept), report.widened, len(report.initialised)) == (653, ["conv_in.weight"], initialised)
    assert "conv_in.bias" in report.kept
    assert str(report) == f"653 entries kept, 1 widened with zeros, {initialised} initialised"


@torch.no_grad()
def test_stable_diffusion_starts_a_training_but_is_no_denoiser(tmp_path):
    config = unet_config("stage2", tiny=True)
    given = random_weights(stable_diffusion(config, audio_dim=96), seed=8)
    torch.save(given, tmp_path / "sd.pt")
    assert "holds a Stable Diffusion U-Net" in sentence_of(load_unet, config, tmp_path / "sd.pt")
    model, report = start_from_stable_diffusion(config, tmp_path / "sd.pt")
    own = model.state_dict()
    assert all(torch.equal(own[key], given[key]) for key in report.kept)
    assert torch.equal(own["conv_in.weight"][:, :4], given["conv_in.weight"]) and not own["conv_in.weight"][:, 4:].any()
    assert not own["down_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight"].any()
    assert own["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].any()


def test_stage_1_starts_stage_2_and_other_widths_start_nothing(files):
    model, report = start_from_stable_diffusion(unet_config("stage2", tiny=True), files["stage1"])
    assert not report.widened and all(".motion_modules." in key for key in report.initialised)
    given = weights.read_state_dict(files["stage1"])[0]
    assert torch.equal(model.conv_in.weight, given["conv_in.weight"])
    wide = UNetConfig([32, 32, 32, 64], 1, 32, 64, use_motion_module=False)
    assert "cannot start this U-Net" in sentence_of(start_from_stable_diffusion, wide, files["stage1"])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder of a project without weights, and a cache of huggingface_hub of its own."""
    shutil.copytree(build.ROOT / "configs", tmp_path / "project/configs")
    for module in (build, app_models):
        monkeypatch.setattr(module, "ROOT", tmp_path / "project")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "project/assets/embedded").mkdir(parents=True)
    (tmp_path / "project" / build.EMBEDDED).write_text("data: {resolution: 64}\n")
    return tmp_path / "project"


def cached(hub, repository, *files):
    """Put files into a cache as huggingface_hub lays it out."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc123")
    for name in files:
        (folder / "snapshots/abc123" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "snapshots/abc123" / name).write_bytes(b"x")
    return folder / "snapshots/abc123"


def published_layout(project, version="1.6"):
    """What following the published instructions leaves."""
    stage = "v1.0" if version == "1.0" else "stage2"
    write_unet(project / "checkpoints/latentsync_unet.pt", unet_config(stage, tiny=True), version=version)
    (project / "checkpoints/whisper").mkdir()
    (project / "checkpoints/whisper/tiny.pt").touch()
    return cached(project.parent / "hub", "stabilityai/sd-vae-ft-mse", "config.json", "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(("version", "resolution"), [("1.6", 512), ("1.0", 256)])
def test_the_published_layout_is_found(project, caplog, version, resolution):
    vae = published_layout(project, version)
    with caplog.at_level(logging.INFO):
        config, files = build.locate_models()
    assert files.config == project / "configs/unet" / build.CONFIGS[version] and config.data.resolution == resolution
    assert files.unet == project / "checkpoints/latentsync_unet.pt"
    assert files.whisper == project / "checkpoints/whisper/tiny.pt" and files.vae == vae
    told = [record.getMessage() for record in caplog.records if "is assumed" in record.getMessage()]
    assert len(told) == (version == "1.6")
    assert all("1.6 is assumed, with faces of 512 pixels" in line and "stage2.yaml" in line for line in told)
    assert "embedded" not in caplog.text
    assert [choice.key for choice in app_models.find_models(root=project)] == [version, "embedded"]
    names = {name for name in weights.WEIGHTS if weights.find_weights(name, project / "checkpoints")}
    assert names == {f"unet-{version}", "whisper-tiny", "vae", "vae-config"}
    config, files = build.locate_models(project / "configs/unet/stage2.yaml")
    assert files.unet == project / "checkpoints/latentsync_unet.pt" and config.data.resolution == 256


def test_the_stand_in_is_never_taken_beside_a_denoiser(project):
    write_unet(project / "checkpoints/latentsync_unet.pt", unet_config(tiny=True))
    sentence = sentence_of(build.locate_models)
    assert "sd-vae-ft-mse" in sentence and "whisper/tiny.pt" in sentence and "latentsync_unet.pt" not in sentence
    (project / "checkpoints/latentsync_unet.pt").write_bytes(b"<html>not found</html>")
    assert build.find_config(project).name == "stage2_512.yaml"  # loading it tells that it is a web page
    (project / "checkpoints/latentsync_unet.pt").unlink()
    assert build.find_config(project) == project / build.EMBEDDED


def test_a_denoiser_without_a_configuration_gets_that_of_its_version(project, tmp_path, caplog):
    published_layout(project)
    write_unet(tmp_path / "first.pt", unet_config("v1.0", tiny=True), version="1.0")
    write_unet(tmp_path / "latentsync-1.5/latentsync_unet.pt", unet_config(tiny=True))
    state = weights.read_state_dict(project / "checkpoints/latentsync_unet.pt")[0]
    torch.save({"state_dict": state, "global_step": 61234}, tmp_path / "other.pt")
    with caplog.at_level(logging.INFO):
        assert build.locate_models(unet_path=tmp_path / "first.pt")[1].config.name == "v1.0.yaml"
        assert build.locate_models(unet_path=tmp_path / "latentsync-1.5/latentsync_unet.pt")[1].config.name == "stage2.yaml"
        assert not caplog.records
        assert build.locate_models(unet_path=tmp_path / "other.pt")[1].config.name == "stage2_512.yaml"
        assert "other.pt does not say which version it is (saved at step 61234): version 1.6 is assumed" in caplog.text
        caplog.clear()
        build.locate_models(project / "configs/unet/stage2_512.yaml", tmp_path / "latentsync-1.5/latentsync_unet.pt")
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "version 1.5, whose faces have 256 pixels" in caplog.text
    assert "does not exist" in sentence_of(weights.read_checkpoint, tmp_path / "none.pt")
    assert "none.pt" in sentence_of(build.locate_models, None, tmp_path / "none.pt")


def test_a_denoiser_in_the_cache_says_its_version(project):
    file = cached(project.parent / "hub", "ByteDance/LatentSync-1.5", "latentsync_unet.pt") / "latentsync_unet.pt"
    assert build.find_denoisers(project) == {"1.5": file} and weights.stated_version(file) == "1.5"
    assert build.find_config(project).name == "stage2.yaml"


@pytest.mark.parametrize("call", [download_weights.main, lambda words: command.main(["download", *words])])
def test_download_without_a_connection_tries_once(tmp_path, monkeypatch, capsys, call):
    monkeypatch.setattr(download_weights, "reachable", lambda address: False)
    monkeypatch.setattr(download_weights, "fetch", lambda *args: pytest.fail("nothing may be fetched"))
    assert call(["--checkpoints", str(tmp_path), "--versions", "1.5"]) == 0
    told = capsys.readouterr().out
    assert str(tmp_path / "latentsync-1.5/latentsync_unet.pt") in told and "latentsync-1.6/" not in told
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "training", "others"),
    [
        ([], set(), {*BASE, "unet-1.6"}),
        (["--training"], FOR_TRAINING, {*BASE, "unet-1.6"}),
        (["--versions", "1.5", "1.0"], set(), {*BASE, "unet-1.5", "unet-1.0"}),
        (["--names", "unet-1.0"], set(), {"unet-1.0"}),
        (["--names", "vgg16", "whisper-small"], {"vgg16"}, {"whisper-small"}),
        (["--names", "vae", "--training"], FOR_TRAINING, {"vae"}),
    ],
)
def test_files_for_training_are_fetched_when_asked_for(tmp_path, monkeypatch, arguments, training, others):
    wanted = []
    monkeypatch.setattr(download_weights, "reachable", lambda address: True)
    monkeypatch.setattr(download_weights, "download", lambda names, *_: wanted.extend(names))
    assert download_weights.main(["--checkpoints", str(tmp_path), *arguments]) == 0
    assert set(wanted) == training | others
    assert len(FOR_TRAINING) == 8 and not any(weights.WEIGHTS[name].required for name in FOR_TRAINING)


def test_download_leaves_whole_files_or_none(tmp_path, monkeypatch, capsys):
    source = tmp_path / "server"
    source.mkdir()
    monkeypatch.setattr(download_weights, "reachable", lambda address: True)
    table = {"good": b"good", "wrong": b"evil", "mine": b"theirs", "gone": None}
    for name, content in table.items():
        if content is not None:
            (source / name).write_bytes(content)
    entries = {
        name: weights.WeightFile(
            weights.Path(f"x/{name}.pt"), None, (source / name).as_uri(), "-", "a test", "770e607624" if name != "mine" else None
        )
        for name in table
    }
    for module in (weights, download_weights):
        monkeypatch.setattr(module, "WEIGHTS", entries)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "x").mkdir(parents=True)
    (checkpoints / "x/mine.pt").write_bytes(b"mine")
    assert download_weights.main(["--checkpoints", str(checkpoints)]) == 0
    assert {path.name: path.read_bytes() for path in (checkpoints / "x").iterdir()} == {"good.pt": b"good", "mine.pt": b"mine"}
    told = capsys.readouterr().out
    assert "wrong.pt" in told and "checksum" in told and "gone.pt: missing" in told


def test_a_compressed_checkpoint_holds_the_same_numbers(tmp_path: Path) -> None:
    """Mapped into memory, its compressed bytes would be taken for numbers."""
    tensors = {"a": torch.randn(40, 50, generator=torch.Generator().manual_seed(0)), "b": torch.zeros(3000)}
    torch.save({"state_dict": tensors}, tmp_path / "plain.pt")
    with ZipFile(tmp_path / "plain.pt") as plain, ZipFile(tmp_path / "small.pt", "w", ZIP_DEFLATED) as small:
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    assert (tmp_path / "small.pt").stat().st_size < (tmp_path / "plain.pt").stat().st_size
    found = weights.read_checkpoint(tmp_path / "small.pt")["state_dict"]
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
