"""Audio features against the numbers of the published code, and what this project promises beyond them."""

import shutil
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from golden_recipe import GOLDEN, load_case
from safetensors.torch import load_file, save_file
from whisper.model import AudioEncoder

from latentsync.errors import WeightsError
from latentsync.whisper.audio2feature import _NAMES, Audio2Feature, LogMel, load_whisper_encoder, whisper_sha256

CASE, NUMBERS = load_case("whisper_features")
TOLERANCE = CASE["tolerance"]


@pytest.fixture(scope="module")
def extractor() -> Audio2Feature:
    return Audio2Feature(load_whisper_encoder(GOLDEN / "whisper_reduced.pt"))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with wave.open(str(GOLDEN / "speech_3p2s_16k.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768


@pytest.fixture(scope="module")
def long_noise() -> np.ndarray:
    noise = 3000 * np.random.RandomState(5005).standard_normal(496333)
    return np.clip(noise, -32768, 32767).astype("<i2").astype(np.float32) / 32768


def test_log_mel(speech: np.ndarray, long_noise: np.ndarray) -> None:
    mel = LogMel(speech)
    torch.testing.assert_close(mel.columns(0, mel.num_columns), NUMBERS["mel"], **TOLERANCE)
    long = LogMel(long_noise)
    assert long.num_columns == CASE["shapes"]["long_mel"][1]
    ours = torch.stack([long.columns(i, i + 1)[:, 0] for i in (0, 2999, 3000, long.num_columns - 1)])
    torch.testing.assert_close(ours, NUMBERS["long_mel_col_0_2999_3000_last"], **TOLERANCE)


@pytest.mark.parametrize("length", [1, 150, 399, 400, 401, 800, 1599, 16000])
def test_log_mel_of_short_sound_is_whispers(speech: np.ndarray, length: int) -> None:
    samples = speech[20000 : 20000 + length]
    padded = np.pad(samples, (0, max(0, 400 - length)))
    mel = LogMel(samples)
    expected = whisper.audio.log_mel_spectrogram(torch.from_numpy(padded))
    torch.testing.assert_close(mel.columns(0, mel.num_columns), expected, **TOLERANCE)
    pieces = [mel.columns(i, i + 1) for i in range(mel.num_columns)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, **TOLERANCE)


def test_digital_silence_is_finite(extractor: Audio2Feature) -> None:
    assert extractor.windows(np.zeros(16000, np.float32)).frames(0, 25).isfinite().all()


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Whisper of the golden numbers as a folder in the layout of Hugging Face; its decoder is another one."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    published = torch.load(GOLDEN / "whisper_reduced.pt", weights_only=True)
    dims, folder = published["dims"], tmp_path_factory.mktemp("whisper") / "hf"
    width, heads = dims["n_audio_state"], dims["n_audio_head"]
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        num_mel_bins=dims["n_mels"],
        max_source_positions=dims["n_audio_ctx"],
        encoder_layers=dims["n_audio_layer"],
        **{"d_model": width, "encoder_attention_heads": heads, "encoder_ffn_dim": 4 * width},
        **{"vocab_size": 8, "decoder_layers": 1, "decoder_attention_heads": heads, "decoder_ffn_dim": 8, "max_target_positions": 4},
        **tokens,
    )
    model = WhisperForConditionalGeneration(config)
    encoder = {key: value.float() for key, value in published["model_state_dict"].items() if key.startswith("encoder.")}
    for theirs, ours in _NAMES.items():
        encoder = {key.replace(ours, theirs): value for key, value in encoder.items()}
    model.model.encoder.load_state_dict({key.removeprefix("encoder."): value for key, value in encoder.items()})
    model.save_pretrained(folder)
    return folder


def test_a_folder_of_hugging_face_gives_the_same_features(hugging_face: Path, extractor: Audio2Feature, speech: np.ndarray) -> None:
    from transformers import WhisperModel

    ours = Audio2Feature(load_whisper_encoder(hugging_face))
    windows = ours.windows(speech)
    torch.testing.assert_close(windows.features(0, windows.num_steps), NUMBERS["features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(windows.frames(0, 80), extractor.windows(speech).frames(0, 80), rtol=0, atol=1e-4)
    mel = torch.randn(ours.encoder.conv1.in_channels, 2 * ours.context, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = WhisperModel.from_pretrained(hugging_face).encoder(mel[None], output_hidden_states=True).hidden_states
        states = ours.encode(mel)
        normed = torch.stack([*states.unbind(1)[:-1], ours.encoder.ln_post(states[:, -1])])  # they put the final norm on the last
    torch.testing.assert_close(normed, torch.cat(theirs), rtol=0, atol=1e-4)


def test_folders_that_hold_no_whisper_are_refused(hugging_face: Path, tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(WeightsError) as caught:
            load_whisper_encoder(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "no config.json" in refusal(tmp_path / "empty")
    assert f"name its folder, {hugging_face}" in refusal(hugging_face / "model.safetensors")
    file, whole = "model.safetensors", load_file(hugging_face / "model.safetensors")
    shutil.copytree(hugging_face, tmp_path / "lacks")
    first = "model.encoder.layers.0.fc1.bias"
    save_file({key: value for key, value in whole.items() if key != first}, tmp_path / "lacks" / file, {"format": "pt"})
    assert "lacks 1 entries of Whisper's encoder" in refusal(tmp_path / "lacks")
    (tmp_path / "lacks" / file).write_bytes((hugging_face / file).read_bytes()[:999])
    assert "cannot be read as a Whisper model" in refusal(tmp_path / "lacks")
    (tmp_path / "lacks" / "config.json").write_text('{"model_type": "bert"}')
    assert "describes bert and not whisper" in refusal(tmp_path / "lacks")
    for content in ({"state_dict": {}}, {"dims": {**CASE["config"]["dims"], "n_audio_layer": 3}, "model_state_dict": {}}):
        torch.save(content, tmp_path / "tiny.pt")
        refusal(tmp_path / "tiny.pt")


def test_a_folder_is_known_by_its_weights(hugging_face: Path, tmp_path: Path) -> None:
    shutil.copytree(hugging_face, tmp_path / "same")
    (tmp_path / "same" / "README.md").write_text("something")
    assert whisper_sha256(tmp_path / "same", "") == whisper_sha256(hugging_face, "")
    (tmp_path / "same" / "model.safetensors").write_bytes(b"other")
    assert whisper_sha256(tmp_path / "same", "") != whisper_sha256(hugging_face, "")


def test_features_and_windows(extractor: Audio2Feature, speech: np.ndarray) -> None:
    recording = extractor.windows(speech)
    assert recording.num_steps == CASE["shapes"]["features"][0]
    torch.testing.assert_close(recording.features(0, recording.num_steps), NUMBERS["features"], **TOLERANCE)
    windows = recording.frames(0, CASE["shapes"]["n_chunks_for_3p2s"])
    assert list(windows.shape[1:]) == CASE["shapes"]["chunk"]
    for frame in (0, 40, 79):
        torch.testing.assert_close(windows[frame], NUMBERS[f"chunk_frame{frame}"], **TOLERANCE)
    torch.testing.assert_close(windows[[7, 22]], NUMBERS["train_window_start7_first_last"], **TOLERANCE)


@pytest.mark.parametrize(("fps", "frames"), [(30, (5, 17)), (24, (5, 17)), (25, (0, 1, 78, 81))])
def test_windows_at_other_rates_and_at_the_edges(extractor: Audio2Feature, speech: np.ndarray, fps: int, frames: tuple[int, ...]) -> None:
    windows = extractor.windows(speech, Fraction(fps))
    features = windows.features(0, windows.num_steps)
    known = CASE["selected_indices"] | CASE["selected_indices_other_fps"]
    for frame in frames:
        steps = known[str(frame) if fps == 25 else f"fps{fps}_frame{frame}"]
        torch.testing.assert_close(windows.frames(frame, frame + 1)[0], features[steps].flatten(0, 1))


def test_strength_is_a_line_from_silence_through_the_sound(extractor: Audio2Feature, speech: np.ndarray) -> None:
    usual = extractor.windows(speech)
    none, half, more = (extractor.windows(speech, strength=strength).frames(8, 60) for strength in (0.0, 0.5, 1.5))
    sound = usual.frames(8, 60)
    silence = extractor.windows(np.zeros_like(speech))
    silence.log_mel.loudest = usual.log_mel.loudest  # digital silence beside this sound
    silence = silence.frames(8, 60)
    assert torch.equal(none, silence)
    torch.testing.assert_close(half, (sound + silence) / 2)
    torch.testing.assert_close(more, silence + 1.5 * (sound - silence))
    limited = Audio2Feature(extractor.encoder, limit=0.5).windows(speech, strength=1.5).frames(0, 80)
    assert limited.abs().max() <= 0.5


@pytest.fixture(scope="module")
def short_sighted() -> Audio2Feature:
    """An encoder with a context of 3 s, so that seams come soon; random weights."""
    torch.manual_seed(0)
    return Audio2Feature(AudioEncoder(n_mels=80, n_ctx=150, n_state=32, n_head=2, n_layer=2).eval())


def test_long_sound_keeps_the_first_piece_and_its_length(extractor: Audio2Feature, long_noise: np.ndarray) -> None:
    windows = extractor.windows(long_noise)
    assert windows.num_steps == CASE["shapes"]["long_features"][0]
    whole = extractor.encode(windows.log_mel.columns(0, 3000))
    torch.testing.assert_close(windows.features(0, 1000), whole[:1000], **TOLERANCE)


def test_features_do_not_jump_between_pieces(short_sighted: Audio2Feature) -> None:
    """Steady noise: the step from one piece to the next must be no larger than steps within a piece."""
    noise = np.random.RandomState(1).standard_normal(16000 * 12).astype(np.float32) * 0.1
    windows = short_sighted.windows(noise)
    assert windows.num_pieces > 4
    features = windows.features(0, windows.num_steps)
    assert features.shape[0] == windows.num_steps == 600
    jumps = (features[1:] - features[:-1]).flatten(1).norm(dim=1)
    assert jumps.max() < 1.5 * jumps[5:80].max()


def test_any_slice_of_features_equals_the_whole(short_sighted: Audio2Feature) -> None:
    noise = np.random.RandomState(2).standard_normal(16000 * 9).astype(np.float32) * 0.1
    windows = short_sighted.windows(noise)
    whole = windows.features(0, windows.num_steps)
    for start, stop in ((0, 10), (95, 130), (140, 160), (90, 260), (440, 450)):
        torch.testing.assert_close(windows.features(start, stop), whole[start:stop])
    assert windows._piece.cache_info().currsize <= 2
    silent = short_sighted.windows(noise, strength=0.0)
    rest = silent.frames(0, 225)
    torch.testing.assert_close(silent.frames(100, 140), rest[100:140])
    assert silent._silence.cache_info().misses == 1 and windows._silence.cache_info().misses == 0
