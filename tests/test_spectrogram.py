"""The mel of SyncNet against reference numbers, and its windows."""

import json
import wave

import numpy as np
import pytest
import torch
from golden_recipe import GOLDEN, load_case

from latentsync.mel import log_mel, mel_filters, mel_window, window_length, window_start


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    with wave.open(str(GOLDEN / "speech_3p2s_16k.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def test_mel_equals_the_reference(samples):
    sidecar, tensors = load_case("mel_wav2lip")
    torch.testing.assert_close(torch.from_numpy(mel_filters()), tensors["mel_basis"], rtol=1e-5, atol=1e-7)
    mel = log_mel(samples)
    torch.testing.assert_close(mel, tensors["mel_float64"], **sidecar["tolerance"])
    torch.testing.assert_close(mel_window(mel, 7, 16), tensors["window16_start7"], **sidecar["tolerance"])


def test_windows_start_and_end_as_the_reference_says(samples):
    table = json.loads((GOLDEN / "mel_wav2lip.json").read_text())["crop_table[num_frames] = [frame, start, length, shape]"]
    mel = log_mel(samples)
    for num_frames, rows in table.items():
        for frame, start, _, shape in rows:
            assert window_start(frame) == start
            whole = shape[2] == window_length(int(num_frames))
            if whole:
                assert list(mel_window(mel, frame, int(num_frames)).shape) == shape
            else:
                with pytest.raises(ValueError, match="columns of sound"):
                    mel_window(mel, frame, int(num_frames))


def test_silence_is_the_lowest_value():
    assert torch.equal(log_mel(np.zeros(16_000, np.float32)), torch.full((80, 81), -4.0, dtype=torch.float64))
