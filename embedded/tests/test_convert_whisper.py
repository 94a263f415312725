"""The converted Whisper: CTranslate2's format, the features of the shipped encoder, and what the whole model understands."""

import os
import re
import shutil
import struct
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from golden_recipe import GOLDEN, load_case
from whisper.model import ModelDimensions, Whisper

from embedded.convert_whisper import DEFAULT_OUTPUT, WHEEL, convert, main, read_variables, write
from embedded.talking_heads.speech.synthesis import speak
from embedded.talking_heads.speech.voices import Voice
from latentsync.errors import InputError
from latentsync.whisper.audio2feature import Audio2Feature, LogMel, load_whisper_encoder

DIMS = ModelDimensions(4, 6, 8, 2, 2, 5, 3, 8, 2, 1)
WHEELS = "LATENTSYNC_WHEELS"  # environment variable: a folder of downloaded wheels
LINE = "The boy carries a small blue box to the kitchen table."
_RENAMED = (  # openai-whisper -> CTranslate2
    *(
        (r"decoder\.token_embedding", "decoder/embeddings"),
        (r"(decoder\.ln|encoder\.ln_post)\.", lambda found: found[1][:7] + "/layer_norm."),
    ),
    *((r"\.blocks\.(\d)\.", r"/layer_\1/"), (r"cross_attn_ln", "attention/layer_norm"), (r"attn_ln", "self_attention/layer_norm")),
    *((r"mlp_ln", "ffn/layer_norm"), (r"mlp\.0", "ffn/linear_0"), (r"mlp\.2", "ffn/linear_1")),
    *((r"layer_norm\.weight", "layer_norm/gamma"), (r"layer_norm\.bias", "layer_norm/beta")),
    *((r"positional_embedding", "position_encodings/encodings"), (r"\.", "/")),
)


@pytest.fixture(scope="module")
def random_whisper() -> dict[str, torch.Tensor]:
    """Weights of a tiny Whisper by openai-whisper's names."""
    torch.manual_seed(0)
    return {name: torch.randn(value.shape).half() for name, value in Whisper(DIMS).state_dict().items()}


def ctranslate2(weights: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same weights by CTranslate2's names, layers of attention stacked."""
    found = {"encoder/num_heads": np.int16(2), "decoder/num_heads": np.int16(2), "decoder/pre_norm": np.int8(1)}
    weights = dict(weights)
    for name in [name for name in weights if name.endswith("query.weight")]:
        ours = name.removesuffix("query.weight")
        parts = [["query"], ["key", "value"], ["out"]] if "cross_attn" in ours else [["query", "key", "value"], ["out"]]
        theirs = re.sub(r"\.blocks\.(\d)\.", r"/layer_\1/", ours).replace("cross_attn.", "attention").replace("attn.", "self_attention")
        weights[f"{ours}key.bias"] = torch.zeros(DIMS.n_audio_state).half()
        for index, names in enumerate(parts):
            for ending in ("weight", "bias"):
                stacked = torch.cat([weights.pop(f"{ours}{name}.{ending}") for name in names])
                found[f"{theirs}/linear_{index}/{ending}"] = stacked.numpy()
    for name, value in weights.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = value.numpy()
    return found


def model_bin(variables: Mapping[str, np.ndarray], version: int = 6) -> bytes:
    def text(words: str) -> bytes:
        return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"

    content = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        kind = {"int8": 1, "int16": 2, "float16": 4}[value.dtype.name]
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        content += text(name) + shape + struct.pack("<BI", kind, value.nbytes) + value.tobytes()
    return content + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")


def test_a_model_of_ctranslate2_becomes_one_of_openai_whisper(random_whisper: dict[str, torch.Tensor]) -> None:
    variables = read_variables(model_bin(ctranslate2(random_whisper)))
    assert variables["decoder/projection/weight"] is variables["decoder/embeddings/weight"]
    whole = convert(variables, with_decoder=True)
    assert ModelDimensions(**whole["dims"]) == DIMS
    assert whole["model_state_dict"].keys() == random_whisper.keys()
    assert all(torch.equal(value, random_whisper[name]) for name, value in whole["model_state_dict"].items())


def test_an_encoder_alone_is_a_whisper_without_words(random_whisper: dict[str, torch.Tensor], tmp_path: Path) -> None:
    alone = convert(read_variables(model_bin(ctranslate2(random_whisper))), with_decoder=False)
    for name in ("first.pt", "second.pt"):
        write(tmp_path / name, alone)
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "second.pt").read_bytes()
    encoder = load_whisper_encoder(tmp_path / "first.pt").state_dict()
    assert all(torch.equal(value, random_whisper[f"encoder.{name}"].float()) for name, value in encoder.items())
    assert whisper.load_model(str(tmp_path / "first.pt"), device="cpu").dims.n_text_layer == 0


def test_what_is_no_such_model_is_refused(
    random_whisper: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = ctranslate2(random_whisper)
    with pytest.raises(InputError, match="version 5"):
        read_variables(model_bin(variables, version=5))
    with pytest.raises(InputError, match="cut short or damaged"):
        read_variables(model_bin(variables)[:-900])
    variables["encoder/layer_0/self_attention/linear_0/bias"][DIMS.n_audio_state] = 1
    with pytest.raises(InputError, match="bias of its key"):
        convert(variables, with_decoder=False)
    (tmp_path / "other.whl").write_bytes(b"another package")
    assert main([f"--wheel={tmp_path / 'other.whl'}", f"--output={tmp_path / 'made.pt'}"]) == 2
    assert "checksum" in caplog.text and not (tmp_path / "made.pt").exists()


def test_the_shipped_encoder_gives_whispers_features() -> None:
    """Numbers of openai-whisper's own encoder, with the weights of the whole model."""
    case, numbers = load_case("whisper_tiny_en")
    with wave.open(str(GOLDEN / "speech_3p2s_16k.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    mel, extractor = LogMel(samples), Audio2Feature(load_whisper_encoder(DEFAULT_OUTPUT))
    states = extractor.encode(mel.columns(0, mel.num_columns))[case["steps"]]  # t l d
    torch.testing.assert_close(states, numbers["states"], **case["tolerance"])
    torch.testing.assert_close(extractor.encoder.ln_post(states[:, -1]), numbers["final"], **case["tolerance"])


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_the_whole_model_understands_speech(tmp_path: Path) -> None:
    wheels = os.environ.get(WHEELS)
    wheel = next(Path(wheels).glob(WHEEL), None) if wheels else None
    if wheel is None:
        pytest.skip(f"{WHEELS} names no folder with {WHEEL}")
    assert main([f"--wheel={wheel}", "--decoder", f"--output={tmp_path / 'tiny.en.pt'}", "--quiet"]) == 0
    model = whisper.load_model(str(tmp_path / "tiny.en.pt"), device="cpu")
    for name, value in load_whisper_encoder(DEFAULT_OUTPUT).state_dict().items():
        assert torch.equal(value, model.encoder.state_dict()[name].float()), "the shipped encoder is that of the whole model"
    heard = whisper.transcribe(model, speak(LINE, Voice("flite", "slt")).samples, fp16=False, language="en", temperature=0.0)
    assert heard["text"].strip() == LINE
