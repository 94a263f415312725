"""Pixels to latents and back against reference numbers, in slices, with gradients; and folders that hold something else."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from golden_recipe import assert_published, load_case, load_seeded
from safetensors.torch import load_file, save_file

from benchmarks.write_random_checkpoint import vae_config, write_vae
from latentsync.errors import WeightsError
from latentsync.models.vae import PUBLISHED, LatentCodec, SkipAutoencoderKL, load_tiny_vae, load_vae


@pytest.fixture(scope="module")
def golden():
    """The codec with the weights of the case, its tensors, its tolerance."""
    sidecar, tensors = load_case("vae_tiny")
    return LatentCodec(load_seeded(AutoencoderKL(**sidecar["config"]), sidecar)), tensors, sidecar["tolerance"]


@pytest.fixture
def folder(tmp_path):
    """A tiny autoencoder on disk."""
    write_vae(tmp_path / "vae", vae_config(tiny=True))
    return tmp_path / "vae"


@torch.no_grad()
def test_encode_samples_with_the_given_noise(golden):
    codec, tensors, tolerance = golden
    torch.testing.assert_close(codec.encode(tensors["input"], tensors["noise"]), tensors["latents_scaled"], **tolerance)
    mean = codec.encode(tensors["input"], torch.zeros_like(tensors["noise"]))
    torch.testing.assert_close(mean, tensors["mean"] * 0.18215, **tolerance)


@torch.no_grad()
def test_decode_undoes_the_scale(golden):
    codec, tensors, tolerance = golden
    torch.testing.assert_close(codec.decode(tensors["z"] * 0.18215), tensors["decoded_z"], **tolerance)
    torch.testing.assert_close(codec.decode(tensors["z"]), tensors["decoded_from_scaled_z"], **tolerance)


@torch.no_grad()
def test_slices_change_nothing_but_the_size_of_a_call(golden):
    codec, tensors, tolerance = golden
    pixels, noise = tensors["input"].repeat(3, 1, 1, 1)[:5], tensors["noise"].repeat(3, 1, 1, 1)[:5]
    whole = codec.encode(pixels, noise)
    sizes = []
    hook = codec.vae.encoder.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    codec.slice_size = 2
    try:
        torch.testing.assert_close(codec.encode(pixels, noise), whole, **tolerance)
        assert sizes == [2, 2, 1]
        torch.testing.assert_close(codec.decode(whole[:2]), codec.decode(whole)[:2], **tolerance)
    finally:
        codec.slice_size = None
        hook.remove()


def test_log_variance_is_clamped(golden):
    codec, tensors, _ = golden
    hook = codec.vae.quant_conv.register_forward_hook(
        lambda module, args, output: torch.cat([output[:, :4] * 0, output[:, 4:] * 0 + 99], dim=1)
    )
    try:
        latents = codec.encode(tensors["input"], torch.ones_like(tensors["noise"]))
    finally:
        hook.remove()
    torch.testing.assert_close(latents, torch.full_like(latents, torch.tensor(20.0).mul(0.5).exp().item() * 0.18215))


def test_gradients_pass_through_a_frozen_codec(folder):
    codec = load_vae(folder)
    codec.slice_size = 1
    latents = torch.randn(2, 4, 4, 4, requires_grad=True)
    codec.decode(latents).square().mean().backward()
    assert all(part.abs().sum() > 0 for part in latents.grad)
    assert not any(parameter.requires_grad for parameter in codec.parameters())


@torch.no_grad()
def test_a_folder_with_old_names_loads_like_one_with_new_names(folder, tmp_path):
    old_file = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert "encoder.mid_block.attentions.0.query.weight" in old_file
    codec = load_vae(folder, dtype=torch.bfloat16)
    assert codec.dtype == torch.bfloat16
    new = tmp_path / "new"
    new.mkdir()
    (new / "config.json").write_text((folder / "config.json").read_text())
    torch.save({key: value.float() for key, value in codec.vae.state_dict().items()}, new / "diffusion_pytorch_model.bin")
    latents = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(load_vae(folder).decode(latents), load_vae(new).decode(latents), rtol=0.1, atol=0.05)


def original_name(key):
    """An entry's name in the original Stable Diffusion, for four levels."""
    for ours, theirs in {
        "mid_block.resnets.0.": "mid.block_1.",
        "mid_block.resnets.1.": "mid.block_2.",
        "mid_block.attentions.0.group_norm.": "mid.attn_1.norm.",
        **{f"mid_block.attentions.0.to_{name}.": f"mid.attn_1.{name}." for name in "qkv"},
        "mid_block.attentions.0.to_out.0.": "mid.attn_1.proj_out.",
        **{f"down_blocks.{level}.resnets.": f"down.{level}.block." for level in range(4)},
        **{f"down_blocks.{level}.downsamplers.0.": f"down.{level}.downsample." for level in range(4)},
        **{f"up_blocks.{level}.resnets.": f"up.{3 - level}.block." for level in range(4)},
        **{f"up_blocks.{level}.upsamplers.0.": f"up.{3 - level}.upsample." for level in range(4)},
        "conv_norm_out.": "norm_out.",
        "conv_shortcut.": "nin_shortcut.",
    }.items():
        key = key.replace(ours, theirs)
    return key


@torch.no_grad()
def test_a_file_under_the_names_of_the_original_stable_diffusion_loads(folder, tmp_path):
    codec = load_vae(folder)
    state = {original_name(key): value for key, value in codec.vae.state_dict().items()}
    state = {key: value[..., None, None] if ".attn_1." in key and value.dim() == 2 else value for key, value in state.items()}
    whole = {f"first_stage_model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": {**whole, "model.diffusion_model.out.weight": torch.ones(1)}}, folder / "v1-5.ckpt")
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "vae-ft-mse.safetensors")
    latents = torch.randn(1, 4, 4, 4)
    for path in (folder / "v1-5.ckpt", folder / "vae-ft-mse.safetensors", folder / "diffusion_pytorch_model.safetensors"):
        torch.testing.assert_close(load_vae(path).decode(latents), codec.decode(latents))
    (tmp_path / "pipeline").mkdir()
    folder.rename(tmp_path / "pipeline" / "vae")  # of a whole Stable Diffusion in the layout of diffusers
    torch.testing.assert_close(load_vae(tmp_path / "pipeline").decode(latents), codec.decode(latents))


def test_a_file_without_a_configuration_has_the_published_sizes(folder, tmp_path):
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(PUBLISHED)
    assert_published(vae, "vae_sd")
    alone = (folder / "diffusion_pytorch_model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(WeightsError, match=r"alone.safetensors does not fit AutoencoderKL: .* of another shape"):
        load_vae(alone)


@torch.no_grad()
def test_a_decoder_that_is_shown_the_picture_begins_as_the_one_that_is_not(folder):
    plain, masked, latents = load_vae(folder), torch.rand(3, 3, 32, 32), torch.randn(3, 4, 4, 4)
    shown = LatentCodec(SkipAutoencoderKL.from_config(json.loads((folder / "config.json").read_text())), slice_size=2).eval()
    assert shown.vae.load_state_dict(plain.vae.state_dict(), strict=False).unexpected_keys == []
    torch.testing.assert_close(shown.decode(latents, masked), plain.decode(latents, masked))
    for skip in shown.vae.skips:
        torch.nn.init.normal_(skip.weight)
    save_file(shown.vae.state_dict(), folder / "diffusion_pytorch_model.safetensors")
    edit_config(folder, _class_name="SkipAutoencoderKL")
    again = load_vae(folder)
    torch.testing.assert_close(again.decode(latents, masked), shown.decode(latents, masked))
    assert (again.decode(latents, masked) - again.decode(latents, masked.flip(-1))).abs().max() > 0.01
    torch.testing.assert_close(again.decode(latents), plain.decode(latents))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drop_an_entry(folder):
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    del weights["quant_conv.bias"]
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(), r"holds no diffusion_pytorch_model\.safetensors or"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"does not describe an AutoencoderKL"),
        (lambda folder: edit_config(folder, _class_name="UNet2DConditionModel"), r"does not describe an AutoencoderKL"),
        (lambda folder: edit_config(folder, down_block_types=["NoSuchBlock"] * 4), r"does not describe an AutoencoderKL"),
        (lambda folder: edit_config(folder, scaling_factor=0.13025), r"other latents than Stable Diffusion 1\.5's"),
        (lambda folder: edit_config(folder, block_out_channels=[8, 16, 16, 32]), r"of another shape"),
        (drop_an_entry, r"1 missing \(such as quant_conv\.bias\)"),
    ],
)
def test_a_wrong_folder_is_one_sentence(folder, damage, sentence):
    damage(folder)
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_vae(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@torch.no_grad()
def test_a_tiny_autoencoder_takes_the_place(tmp_path):
    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(tmp_path / "tiny")
    codec, pixels, noise = load_tiny_vae(tmp_path / "tiny"), torch.rand(3, 3, 32, 32) * 2 - 1, torch.randn(3, 4, 4, 4)
    latents = codec.encode(pixels, noise)
    torch.testing.assert_close(latents, codec.vae.encode(pixels).latents, rtol=1e-4, atol=1e-4)  # no variance: the noise changes nothing
    codec.slice_size = 2
    torch.testing.assert_close(codec.encode(pixels, noise), latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codec.decode(latents), codec.vae.decode(latents).sample, rtol=1e-4, atol=1e-4)
    AutoencoderTiny(latent_channels=16, encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(
        tmp_path / "x"
    )
    for folder, sentence in (("none", "holds no AutoencoderTiny"), ("x", "16 latent channels")):
        with pytest.raises(WeightsError, match=sentence):
            load_tiny_vae(tmp_path / folder)
