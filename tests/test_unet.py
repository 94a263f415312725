"""The denoiser against reference numbers: outputs, inner states, names and shapes; and the rules it keeps."""

import gzip
import json

import pytest
import torch
from golden_recipe import GOLDEN, load_case, seeded_normal, seeded_state_dict, weights_sha256

from benchmarks.write_random_checkpoint import random_weights, unet_config
from latentsync.config import Sampling, UNetConfig
from latentsync.constants import MAX_FRAMES
from latentsync.diffusion import Conditions, denoise
from latentsync.errors import InputError
from latentsync.models.attention import Attention, SpatialTransformer, TemporalTransformer, position_table
from latentsync.models.unet import ClipGroupNorm, UNet3DConditionModel
from latentsync.models.unet_weights import V10_NAMES
from latentsync.weights import renamed


def with_v10_names(state_dict):
    for old, new in V10_NAMES.items():
        state_dict = {key.replace(new, old): value for key, value in state_dict.items()}
    return state_dict


def case_config(sidecar):
    return UNetConfig(**{key: sidecar["config"][key] for key in UNetConfig.__dataclass_fields__})


def golden_unet(name):
    """The network of a case with the weights of the case, which are drawn in the order of the names of its version."""
    sidecar, tensors = load_case(name)
    model = UNet3DConditionModel(case_config(sidecar)).eval()
    own = with_v10_names(model.state_dict()) if sidecar["version"] == "1.0" else model.state_dict()
    weights = seeded_state_dict(own, sidecar["seed"])
    assert weights_sha256(weights) == sidecar["weights_digest"]["sha256_sorted_key_then_f4_bytes"]
    assert len(weights) == sidecar["weights_digest"]["n_keys"]
    model.load_state_dict(renamed(weights, V10_NAMES))
    return model, tensors, sidecar["tolerance"]


def states_of(model, *paths):
    """What the modules at these paths will have returned after the next forward."""
    states = {}
    for path in paths:
        model.get_submodule(path).register_forward_hook(lambda module, args, output, path=path: states.__setitem__(path, output))
    return states


def b0_f0(state):
    return state[0]


def as_clips(state, batch):
    return state.unflatten(0, (batch, -1)).transpose(1, 2)


@torch.no_grad()
def test_version_10_outputs_and_states():
    model, golden, tolerance = golden_unet("unet_v10_tiny")
    states = states_of(model, "time_embedding", "down_blocks.0.resnets.0", "down_blocks.0.attentions.0", "mid_block")
    sample, audio = golden["sample"], seeded_normal(1012, (8, 50, 384))
    torch.testing.assert_close(model(sample, torch.tensor(951), audio), golden["out_t951"], **tolerance)
    torch.testing.assert_close(states["time_embedding"], golden["act_time_embedding"], **tolerance)
    torch.testing.assert_close(b0_f0(states["down_blocks.0.resnets.0"]), golden["act_down0_resnet0_b0f0"], **tolerance)
    torch.testing.assert_close(b0_f0(states["down_blocks.0.attentions.0"]), golden["act_down0_attn0_b0f0"], **tolerance)
    torch.testing.assert_close(as_clips(states["mid_block"], 2), golden["act_mid"], **tolerance)
    torch.testing.assert_close(model(sample, torch.tensor([7, 640]), audio), golden["out_t7_640"], **tolerance)
    torch.testing.assert_close(model(sample[:1, :, :3, :10, :12], 1, audio[:3]), golden["out_odd"], **tolerance)
    torch.testing.assert_close(model(sample, 951, None), golden["out_no_audio"], **tolerance)
    first = model(sample[:, :, :3], 951, audio.unflatten(0, (2, 4))[:, :3])
    torch.testing.assert_close(first, golden["out_first3frames"], **tolerance)
    coupling = (first - golden["out_t951"][:, :, :3]).abs().max().item()
    assert coupling == pytest.approx(0.1374010443687439, rel=1e-3)  # the norms of a clip's frames are shared


@torch.no_grad()
def test_version_16_outputs_and_states():
    model, golden, tolerance = golden_unet("unet_v16_tiny")
    states = states_of(model, "down_blocks.0.motion_modules.0.temporal_transformer", "mid_block")
    sample, audio = seeded_normal(1601, (2, 13, 16, 16, 16)), seeded_normal(1602, (32, 50, 384))
    torch.testing.assert_close(model(sample, torch.tensor(951), audio), golden["out_t951"], **tolerance)
    torch.testing.assert_close(
        b0_f0(states["down_blocks.0.motion_modules.0.temporal_transformer"]), golden["act_down0_motion0_b0f0"], **tolerance
    )
    torch.testing.assert_close(as_clips(states["mid_block"], 2), golden["act_mid"], **tolerance)
    torch.testing.assert_close(model(sample[:1, :, :5], 51, audio[:5]), golden["out_first5frames_t51"], **tolerance)
    torch.testing.assert_close(model(sample[:1, :, :3, :10, :12], 1, audio[:3]), golden["out_odd"], **tolerance)
    torch.testing.assert_close(position_table(MAX_FRAMES, 32), golden["pe_d32"], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "timestep"), [("unet_v16_tiny_decoder_only", torch.tensor(501)), ("unet_v16_tiny_stage1", torch.tensor([501, 12]))]
)
def test_other_stages(name, timestep):
    model, golden, tolerance = golden_unet(name)
    sample = seeded_normal(1601, (2, 13, 16, 16, 16))[:, :, :4]
    audio = seeded_normal(1602, (32, 50, 384)).unflatten(0, (2, 16))[:, :4]
    torch.testing.assert_close(model(sample, timestep, audio), golden["out"], **tolerance)


@torch.no_grad()
def test_memory_layout_changes_nothing_and_audio_may_be_3d_or_4d():
    model, golden, tolerance = golden_unet("unet_v10_tiny")
    audio = seeded_normal(1012, (8, 50, 384))
    plain = model(golden["sample"], 951, audio)
    assert torch.equal(plain, model(golden["sample"], 951, audio.unflatten(0, (2, 4))))
    last = model.to(memory_format=torch.channels_last)(golden["sample"], 951, audio)
    torch.testing.assert_close(last, plain, **tolerance)
    assert last.is_contiguous()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("unet_v16_stage1", "stage1"),
        ("unet_v16_stage2", "stage2"),
        ("unet_v16_stage2_efficient", "stage2_efficient"),
        ("unet_v10_second_stage", "v1.0"),
    ],
)
def test_names_and_shapes_are_those_of_the_published_files(name, stage):
    manifest = json.loads(gzip.decompress((GOLDEN / "manifests" / f"{name}.json.gz").read_bytes()))
    with torch.device("meta"):
        model = UNet3DConditionModel(unet_config(stage))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == renamed(manifest["shapes"], V10_NAMES)
    if stage == "v1.0":
        assert with_v10_names(model.state_dict()).keys() == manifest["shapes"].keys()
    assert sum(parameter.numel() for parameter in model.parameters()) == manifest["n_parameters"]


def test_epsilons_and_groups():
    model = UNet3DConditionModel(UNetConfig([32, 32, 64, 64], 1, 8, 64))
    for module in model.modules():
        if isinstance(module, ClipGroupNorm):
            assert (module.eps, module.num_groups) == (1e-5, 8)
        elif isinstance(module, torch.nn.GroupNorm):
            assert module.eps == 1e-6
        elif isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-5
        if isinstance(module, SpatialTransformer):
            assert module.norm.num_groups == 8
        if isinstance(module, TemporalTransformer):
            assert module.norm.num_groups == 32
    assert isinstance(model.conv_norm_out, ClipGroupNorm)


@torch.no_grad()
def test_a_fresh_network_starts_at_zero():
    model = UNet3DConditionModel(unet_config(tiny=True)).eval()
    motion = [module for module in model.modules() if isinstance(module, TemporalTransformer)]
    zero = [model.conv_in, model.conv_out, *(module.proj_out for module in motion)]
    assert len(motion) == 4 * 1 + 4 * 2
    assert all(not parameter.any() for module in zero for parameter in module.parameters())
    state = torch.randn(8, 32, 4, 4)
    assert torch.equal(motion[0](state, 4), state)
    assert not model(torch.randn(1, 13, 4, 8, 8), 3).any()


@torch.no_grad()
def test_items_of_a_batch_do_not_mix():
    model, golden, tolerance = golden_unet("unet_v10_tiny")
    audio = seeded_normal(1012, (8, 50, 384))
    alone = model(golden["sample"][1:], 951, audio[4:])
    torch.testing.assert_close(alone, golden["out_t951"][1:], **tolerance)


def test_a_clip_longer_than_the_position_tables_is_refused():
    with torch.device("meta"):
        model = UNet3DConditionModel(unet_config(tiny=True))
        with pytest.raises(InputError, match="25 frames is longer than the 24"):
            model(torch.empty(1, 13, 25, 8, 8), torch.tensor(1))
        assert model(torch.empty(1, 13, 24, 8, 8), torch.tensor(1)).shape == (1, 4, 24, 8, 8)
        assert UNet3DConditionModel(unet_config("v1.0", tiny=True))(torch.empty(1, 13, 25, 8, 8), torch.tensor(1)).shape[2] == 25


def train_step(model, *inputs):
    """Gradients by name, and how many values were kept for them after the forward."""
    kept = []
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        loss = model(*inputs).square().mean()
    total = sum(kept)
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, total


def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less():
    model = UNet3DConditionModel(unet_config(tiny=True)).train()
    model.load_state_dict(random_weights(model.state_dict(), seed=3))
    inputs = seeded_normal(1, (1, 13, 2, 16, 16)), 500, seeded_normal(2, (2, 10, 64))
    plain, plain_kept = train_step(model, *inputs)
    model.enable_gradient_checkpointing()
    again, again_kept = train_step(model, *inputs)
    assert all(gradient.abs().sum() > 0 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-3, atol=1e-6)
    assert again_kept < plain_kept / 3


def test_more_sequences_than_one_fused_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, tokens = Attention(32), torch.randn(7, 3, 32)
    expected = attention(tokens)
    monkeypatch.setattr("latentsync.models.attention.MOST_SEQUENCES", 3)
    torch.testing.assert_close(attention(tokens), expected)


CACHE_CASE, CACHE_NUMBERS = load_case("deepcache")  # with the weights of "unet_v16_tiny"
CACHE_RUNS = CACHE_CASE["runs"]


def cache_inputs():
    """Noise, conditions and audio of the case of cached features."""
    noise = seeded_normal(21601, (1, 4, 1, 16, 16)).expand(1, 4, 16, 16, 16)
    masked, reference = (seeded_normal(seed, (1, 4, 16, 16, 16)) for seed in (21602, 21603))
    mask = torch.ones(1, 1, 16, 16, 16)
    mask[..., 8:, :] = 0
    return noise, Conditions(mask, masked, reference), seeded_normal(21604, (1, 16, 50, 384))


@torch.no_grad()
@pytest.mark.parametrize("name", CACHE_RUNS)
def test_cached_features(name):
    model, _, _ = golden_unet("unet_v16_tiny")
    golden, tolerance, run = CACHE_NUMBERS, CACHE_CASE["tolerance"], CACHE_RUNS[name]
    predicted, sampling = [], Sampling(run["steps"], cache_interval=run["cache_interval"], cache_branch=run["cache_branch_id"])

    def watched(*inputs):
        predicted.append(model(*inputs))
        return predicted[-1]

    latents = denoise(watched, *cache_inputs(), sampling)
    torch.testing.assert_close(latents, golden[f"latents_{name}"], **tolerance)
    for step, key in ((1, "eps_second"), (-1, "eps_last")):
        unconditional, conditional = predicted[step].chunk(2)
        torch.testing.assert_close(unconditional + 1.5 * (conditional - unconditional), golden[f"{key}_{name}"], **tolerance)


@torch.no_grad()
def test_cached_features_where_guidance_begins_and_ends():
    """Features of both halves serve the steps without guidance; a step with guidance never takes those of one half."""
    model, _, tolerance = golden_unet("unet_v16_tiny")
    sizes = []
    model.mid_block.register_forward_hook(lambda module, args, output: sizes.append(len(output) // 16))
    denoise(model, *cache_inputs(), Sampling(6, guidance_stop=0.5, cache_interval=6))
    assert sizes == [2]
    denoise(model, *cache_inputs(), Sampling(6, guidance_start=0.5, cache_interval=6))
    assert sizes == [2, 1, 2]
    noise, conditions, audio = (torch.cat([x, x]) if isinstance(x, torch.Tensor) else x for x in cache_inputs())
    two = Conditions(*(torch.cat([x, x]) for x in (conditions.mask, conditions.masked, conditions.reference)))
    sampling = Sampling(3, cache_interval=2, guidance_stop=0.5)
    together, alone = denoise(model, noise, two, audio, sampling), denoise(model, *cache_inputs(), sampling)
    torch.testing.assert_close(together[1:], alone, **tolerance)
