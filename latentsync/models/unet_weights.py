"""A weight file to a denoiser: published files of every version, strictly; Stable Diffusion 1.5 as a start of training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latentsync.config import UNetConfig
from latentsync.constants import LATENT_CHANNELS, MAX_FRAMES, UNET_IN_CHANNELS
from latentsync.errors import WeightsError
from latentsync.models.attention import position_table
from latentsync.models.unet import UNet3DConditionModel
from latentsync.weights import load_strict, read_state_dict, renamed

V10_NAMES = {  # audio attention in version 1.0 -> in 1.5 and 1.6
    "transformer_blocks.0.audio_cross_attn.norm.": "transformer_blocks.0.norm2.",
    "transformer_blocks.0.audio_cross_attn.attn.": "transformer_blocks.0.attn2.",
}
UNET_PARTS = ("model.diffusion_model.", "diffusion_model.", "unet.")  # what its names begin with in a file of several networks
FOREIGN = {"visual_encoder.": "a SyncNet", "quant_conv.": "a VAE", "encoder.positional_embedding": "a Whisper model"}
WHISPER_NAMES = {384: "Whisper tiny", 768: "Whisper small"}  # whose states the audio tokens are
_TABLE = ".pos_encoder.pe"
_AUDIO_INPUT = re.compile(r"\.attn2\.to_[kv]\.weight$")
_TIME_LAYER = ".motion_modules."


@dataclass(frozen=True)
class UNetSizes:
    """What can be told about a denoiser from the names and shapes of its weights, in the words of `UNetConfig`."""

    block_out_channels: list[int]
    layers_per_block: int
    cross_attention_dim: int
    use_motion_module: bool
    motion_module_decoder_only: bool

    @classmethod
    def of_config(cls, config: UNetConfig) -> "UNetSizes":
        """What a configuration asks for."""
        up_only = config.use_motion_module and config.motion_module_decoder_only
        return cls(list(config.block_out_channels), config.layers_per_block, config.cross_attention_dim, config.use_motion_module, up_only)

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor]) -> "UNetSizes":
        """What a file holds; raises KeyError, IndexError or ValueError where it is no denoiser."""
        matches = [re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.weight", key) for key in weights]
        places = [(int(match[1]), int(match[2])) for match in matches if match]
        widths = [len(weights[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(max(places)[0] + 1)]
        audio_dim = weights["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
        time_layers = {key.split(".")[0] for key in weights if _TIME_LAYER in key}
        return cls(widths, max(layer for _, layer in places) + 1, audio_dim, bool(time_layers), time_layers == {"up_blocks"})

    def in_words(self) -> list[tuple[str, str]]:
        """Each size as a person would say it, and as the configuration would."""
        whisper = WHISPER_NAMES.get(self.cross_attention_dim, "an unpublished Whisper")
        where, config = ("in the up path only", "stage2_efficient") if self.motion_module_decoder_only else ("in all layers", "stage2")
        setting = f"model.use_motion_module=true model.motion_module_decoder_only={str(self.motion_module_decoder_only).lower()}"
        return [
            (f"widths {self.block_out_channels}", f"model.block_out_channels={self.block_out_channels}"),
            (f"{self.layers_per_block} layers in each block", f"model.layers_per_block={self.layers_per_block}"),
            (f"{self.cross_attention_dim}-wide audio tokens ({whisper})", f"model.cross_attention_dim={self.cross_attention_dim}"),
            (f"attention along time {where}", f"{setting} (as in configs/unet/{config}.yaml)")
            if self.use_motion_module
            else ("no attention along time", "model.use_motion_module=false (as in configs/unet/stage1.yaml)"),
        ]


def load_unet(config: UNetConfig, path: Path | str, dtype: torch.dtype = torch.float32) -> UNet3DConditionModel:
    """The denoiser of a published or self-trained file, on the CPU and in evaluation mode; see `map_unet`. Raises WeightsError."""
    return map_unet(config, path).to(dtype=dtype, memory_format=torch.channels_last).eval()


def map_unet(
    config: UNetConfig, path: Path | str, hint: str = "use the configuration that the file was trained with"
) -> UNet3DConditionModel:
    """The denoiser of a file, its weights mapped from there without being read.

    Raises WeightsError where the file is unreadable or does not fit; the sentence says what it holds and which configuration to use.
    """
    state_dict, is_v10 = read_unet(path)
    refuse_misfits(config, state_dict, path, is_v10)
    with torch.device("meta"):
        model = UNet3DConditionModel(config)
    load_strict(model, state_dict, path, hint, assign=True)
    return model


def read_unet(path: Path | str) -> tuple[dict[str, Tensor], bool]:
    """The weights of a U-Net under the names of 1.5 and 1.6, and whether they had those of 1.0.

    Position tables of another length are computed anew: they hold a formula, nothing that was learned.
    """
    given, _ = read_state_dict(path, UNET_PARTS)
    state_dict = renamed(given, V10_NAMES)
    tables = {
        key: position_table(MAX_FRAMES, value.shape[-1]).to(value.dtype)
        for key, value in state_dict.items()
        if key.endswith(_TABLE) and value.shape[1:2] != (MAX_FRAMES,)
    }
    return {**state_dict, **tables}, state_dict.keys() != given.keys()


def refuse_misfits(config: UNetConfig, state_dict: Mapping[str, Tensor], path: Path | str, is_v10: bool = False) -> None:
    """Raise WeightsError, saying what a file holds and what to do, where its names and shapes are not those of a configuration."""
    held = _sizes_or_refuse(state_dict, path)
    in_channels = state_dict["conv_in.weight"].shape[1]
    if in_channels == LATENT_CHANNELS:
        raise WeightsError(
            f"{path} holds a Stable Diffusion U-Net ({in_channels} input channels instead of {UNET_IN_CHANNELS}), which can only be "
            f"the start of a training run: use a latentsync_unet.pt."
        )
    asked_for = UNetSizes.of_config(config)
    pairs = zip(held.in_words(), asked_for.in_words(), strict=True)
    differences = [(found, asked, setting) for (found, setting), (asked, _) in pairs if found != asked]
    if differences:
        found, asked, settings = (", ".join(column) for column in zip(*differences, strict=True))
        if is_v10:
            settings = settings.replace("stage1.yaml", "v1.0.yaml")
        version = " of version 1.0" if is_v10 else ""
        raise WeightsError(f"{path} holds a U-Net{version} with {found} where the configuration asks for {asked}: set {settings}.")


def _sizes_or_refuse(state_dict: Mapping[str, Tensor], path: Path | str) -> UNetSizes:
    """The sizes of a denoiser; a sentence for a file that holds none."""
    for prefix, network in FOREIGN.items():
        if any(key.startswith(prefix) for key in state_dict):
            raise WeightsError(f"{path} holds {network} where a U-Net was expected: use a latentsync_unet.pt.")
    try:
        sizes = UNetSizes.of_weights(state_dict)
        state_dict["conv_in.weight"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        first = next(iter(state_dict))
        raise WeightsError(f"{path} holds no U-Net (its first entry is {first!r}): use a latentsync_unet.pt.") from error
    return sizes


@dataclass(frozen=True)
class StartReport:
    """What became of each entry of a network that starts from another one's file."""

    kept: list[str]  # taken over as they are
    widened: list[str]  # taken over with zeros for the inputs that are new (`conv_in.weight`)
    initialised: list[str]  # new or of another width, at their fresh values

    def __str__(self) -> str:
        return f"{len(self.kept)} entries kept, {len(self.widened)} widened with zeros, {len(self.initialised)} initialised"


def plan_start(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path | str) -> StartReport:
    """Sort a network's entries by the names and shapes of a file.

    Raises WeightsError where something other than the input, the audio projections and the layers along time differs.
    """
    kept = [key for key, value in own.items() if key in given and given[key].shape == value.shape]
    widened = [key for key in own if key == "conv_in.weight" and key in given and given[key].shape[1:] == (LATENT_CHANNELS, 3, 3)]
    initialised = [key for key in own if key not in kept and key not in widened]
    wrong = [key for key in initialised if _TIME_LAYER not in key and not _AUDIO_INPUT.search(key)]
    wrong += [key for key in given if key not in own]
    if wrong:
        raise WeightsError(
            f"{path} cannot start this U-Net, since {len(wrong)} entries such as {wrong[0]} do not fit: use a Stable Diffusion 1.5 U-Net."
        )
    return StartReport(kept, widened, initialised)


def start_from_stable_diffusion(config: UNetConfig, path: Path | str) -> tuple[UNet3DConditionModel, StartReport]:
    """A fresh denoiser for training that takes over what fits from a Stable Diffusion 1.5 U-Net, and a report of what that was.

    The input convolution keeps its weights for the noisy latents and gets zeros for mask, masked and reference latents. Audio
    projections of another width than text and layers along time start fresh; the latter change nothing at first. A denoiser of
    stage 1 can be given just as well to start stage 2. Raises WeightsError.
    """
    given, _ = read_unet(path)
    _sizes_or_refuse(given, path)
    model = UNet3DConditionModel(config)
    own = model.state_dict()
    report = plan_start(own, given, path)
    with torch.no_grad():
        for key in report.kept:
            own[key].copy_(given[key])
        for key in report.widened:
            own[key].zero_()
            own[key][:, :LATENT_CHANNELS].copy_(given[key])
    return model, report
