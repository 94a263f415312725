"""Other programs: ComfyUI's nodes with tensors as it passes them, and the predictor for Replicate with a stand-in for Cog."""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_inference_command import CONFIG, picture, write_sound, write_video

import comfyui
from benchmarks.write_random_checkpoint import write_checkpoint
from latentsync import LipsyncOptions, LipsyncPipeline, build_pipeline
from latentsync.media.probe import probe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> LipsyncPipeline:
    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder, tiny=True)
    (folder / "config.yaml").write_text(CONFIG)
    pipeline = build_pipeline(folder / "config.yaml", device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Interrupted(Exception):
    """As ComfyUI's InterruptProcessingException."""


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stand-ins for the two modules of ComfyUI; `stop_at`: how often progress may be told before the user interrupts."""
    state = SimpleNamespace(shown=[], stop_at=None)

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
            state.shown.append((value, self.total))

    def check() -> None:
        if state.stop_at is not None and len(state.shown) >= state.stop_at:
            raise Interrupted

    utils, management = ModuleType("comfy.utils"), ModuleType("comfy.model_management")
    utils.ProgressBar, management.throw_exception_if_processing_interrupted = ProgressBar, check
    for name, module in {"comfy": ModuleType("comfy"), "comfy.utils": utils, "comfy.model_management": management}.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield state


def comfy_inputs() -> tuple[torch.Tensor, dict[str, Any]]:
    """12 pictures and 0.4 s of sound in two channels, as ComfyUI passes them."""
    images = torch.from_numpy(np.stack([picture(k) for k in range(12)]).astype(np.float32) / 255)
    sound = torch.sin(torch.arange(17640) / 20).repeat(1, 2, 1) * 0.5
    return images, {"waveform": sound, "sample_rate": 44100}


def test_comfyui_nodes_describe_themselves() -> None:
    for node in comfyui.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        names = {name for group in inputs.values() for name in group}
        parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
        assert set(inputs["required"]) <= set(parameters) and len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert names <= set(parameters) or "chosen" in parameters
    assert "embedded" in comfyui.LoadLatentSync.INPUT_TYPES()["required"]["model"][0]
    options = comfyui.LatentSyncNode.INPUT_TYPES()["optional"]
    assert options["quality"] == (["draft", "standard", "fine"], {"default": "standard", "tooltip": options["quality"][1]["tooltip"]})
    assert options["guidance_scale"][0] == "FLOAT" and options["guidance_scale"][1]["default"] == -1
    assert options["keep_fps"][0] == "BOOLEAN" and options["face"][0] == "STRING"


def test_the_comfyui_node_gives_pictures_and_sound_of_one_length(pipeline: LipsyncPipeline, comfy: SimpleNamespace) -> None:
    images, audio = comfy_inputs()
    defaults = {name: options["default"] for name, (_, options) in comfyui.LatentSyncNode.INPUT_TYPES()["optional"].items()}
    with torch.inference_mode():  # in which ComfyUI runs nodes
        made, sound, fps = comfyui.LatentSyncNode().sync(pipeline, images, audio, 25.0, **defaults | {"inference_steps": 1})
    assert made.shape == (10, *images.shape[1:]) and made.dtype == torch.float32 and made.min() >= 0 and made.max() <= 1
    assert sound["sample_rate"] == 44100 and fps == 25.0
    assert torch.equal(sound["waveform"], audio["waveform"])  # 0.4 s are 10 frames
    changed = (made - images[:10]).abs().amax(dim=(0, 3)) > 1 / 255
    assert changed[100:200, 150:250].any() and not changed[:, :50].any()
    assert comfy.shown[-1] == (100, 100) and [value for value, _ in comfy.shown] == sorted(value for value, _ in comfy.shown)


def test_the_comfyui_node_stops_where_its_user_interrupts(pipeline: LipsyncPipeline, comfy: SimpleNamespace) -> None:
    comfy.stop_at = 3
    with pytest.raises(Interrupted):
        comfyui.LatentSyncNode().sync(pipeline, *comfy_inputs(), 25.0, inference_steps=1)
    assert len(comfy.shown) == 3


def test_the_predictor_of_replicate(pipeline: LipsyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cog = ModuleType("cog")
    cog.BasePredictor, cog.Path, cog.Input = object, Path, lambda default=..., **settings: SimpleNamespace(default=default, **settings)
    monkeypatch.setitem(sys.modules, "cog", cog)
    import predict

    monkeypatch.setattr(predict, "build_pipeline", lambda: pipeline)
    options = {option.name: option for option in fields(LipsyncOptions)}
    inputs = inspect.signature(predict.Predictor.predict).parameters
    for name in set(inputs) - {"self", "video", "audio"}:
        shown, option = inputs[name].default, options[name]
        assert shown.default == option.default and tuple(getattr(shown, "choices", None) or ()) == (option.metadata["choices"] or ())
    predictor = predict.Predictor()
    predictor.setup()
    video, audio = write_video(tmp_path / "a.mp4", [picture(k) for k in range(8)]), write_sound(tmp_path / "b.wav", 0.2)
    defaults = {name: inputs[name].default.default for name in set(inputs) - {"self", "video", "audio"}}
    result = predictor.predict(video, audio, **defaults | {"inference_steps": 1})
    assert probe(result).video.frame_count == 5
    monkeypatch.delitem(sys.modules, "predict")


def test_cog_installs_what_the_project_needs() -> None:
    build = yaml.safe_load((ROOT / "cog.yaml").read_text())["build"]
    named = [line for line in (ROOT / "requirements-nodeps.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert build["python_requirements"] == "requirements.txt" and all(f"pip install --no-deps {line}" in build["run"] for line in named)
