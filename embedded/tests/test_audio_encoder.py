"""Training of the audio encoder: segments of speech, a training of seconds, a file that inference reads."""

import json
import wave
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from training_fixtures import curve
from whisper.model import ModelDimensions

from embedded import audio_encoder as train_audio_encoder
from embedded.audio_encoder import (
    STEP,
    UNLABELLED,
    AudioEncoderStep,
    AudioEncoderTrainee,
    Recording,
    SpeechDataset,
    Vocabulary,
    augment,
    first_segment,
    load_audio_encoder_config,
    mean_squares,
    open_recordings,
    pad_segment,
    random_segment,
    read_recording,
    read_vocabulary,
    whisper_mel,
)
from latentsync.config import dump_config
from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.sampling import SampleIndex, collate
from latentsync.errors import ConfigError, InputError
from latentsync.whisper.audio2feature import Audio2Feature, LogMel, load_whisper_encoder

SYMBOLS, CHANNELS = ("sil", "aa", "iy", "s"), ("jaw", "closure")
VOCABULARY = Vocabulary(SYMBOLS, CHANNELS)
TONES = {"sil": 0, "aa": 400, "iy": 1600, "s": 5000}  # Hz
JAW = {"sil": 0.0, "aa": 0.9, "iy": 0.2, "s": 0.1}
CONTEXT = 100  # steps: two seconds
DIMS = ModelDimensions(80, CONTEXT, 16, 2, 2, len(SYMBOLS), 1, 16, 2, 0)


def write_recording(path: Path, seed: int, seconds: float = 2.4) -> Path:
    """Phones of 80 to 240 ms, each a tone of its own, and a jaw that follows them at once."""
    rng, clock = np.random.default_rng(seed), 0.2
    phones: list[list] = [["sil", 0.0, clock]]
    while clock < seconds - 0.25:
        end = round(clock + float(rng.uniform(0.08, 0.24)), 3)
        phones.append([SYMBOLS[rng.integers(len(SYMBOLS))], clock, end])
        clock = end
    phones.append(["sil", clock, seconds])
    times = np.arange(round(seconds * AUDIO_SAMPLE_RATE)) / AUDIO_SAMPLE_RATE
    place = np.searchsorted([end for *_, end in phones], times, side="right").clip(0, len(phones) - 1)
    pitch = np.array([TONES[symbol] for symbol, *_ in phones])[place]
    samples = np.where(pitch > 0, 0.2 * np.sin(2 * np.pi * pitch * times), 0) + 1e-3 * rng.normal(size=len(times))
    frames = (np.arange(round(seconds * VIDEO_FPS)) + 0.5) / VIDEO_FPS
    jaws = [JAW[phones[int(np.searchsorted([end for *_, end in phones], time).clip(0, len(phones) - 1))][0]] for time in frames]
    values = [[jaw, float(jaw == 0)] for jaw in jaws]
    mouth = {"channels": list(CHANNELS), "values": values, "rest": [0.0, 1.0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, AUDIO_SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    path.with_suffix(".json").write_text(json.dumps({"said": {"phones": phones}, "symbols": SYMBOLS, "mouth": mouth}))
    return path


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks of some thousand weights are quickest alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    for index in range(6):
        write_recording(folder / "train" / f"clip_{index}.wav", index)
    for index in range(2):
        write_recording(folder / "held out" / f"clip_{index}.wav", 100 + index)
    return folder


def dataset(speech: Path, is_varied: bool, context: int = CONTEXT) -> SpeechDataset:
    return SpeechDataset(open_recordings(speech / "train"), VOCABULARY, context=context, seed=3, is_varied=is_varied)


def ramp(seconds: float = 4.0) -> Recording:
    """A recording whose mouth tells the time, with another phone in every quarter of a second."""
    frames = np.arange(int(seconds * VIDEO_FPS))
    ends = np.arange(0.25, seconds + 0.01, 0.25)
    samples = np.sin(np.arange(int(seconds * AUDIO_SAMPLE_RATE)) / 8).astype(np.float32)
    mouth = ((frames + 0.5) / VIDEO_FPS)[:, None].astype(np.float32)
    return Recording(samples, 1 + np.arange(len(ends)), ends, mouth, np.full(1, -1, np.float32))


def test_every_step_knows_its_moment() -> None:
    segment = first_segment(ramp(), 1500)
    assert len(segment.phones) == 200 and len(segment.samples) == 200 * STEP
    assert segment.phones[12] == 1 and segment.phones[13] == 2  # 0.24 s and 0.26 s
    assert np.allclose(segment.mouth[1:-1, 0], np.arange(1, 199) / 50, atol=1e-5)  # between the frames, too


def test_an_unchanged_recording_gives_the_mel_of_inference(speech: Path) -> None:
    """Inputs in validation are, to the number, those of `Audio2Feature`."""
    path = open_recordings(speech / "train").clips[0].path
    sample = dataset(speech, is_varied=False, context=200)[0]
    used = LogMel(read_recording(path, VOCABULARY).samples)
    assert used.num_columns == 240 and torch.allclose(sample.mel[0, :, :240], used.columns(0, 240), atol=1e-5)
    assert (sample.mel[0, :, 240:] == 0).all() and (sample.phones[0, 120:] == UNLABELLED).all() and sample.mouth[0, 120:].isnan().all()


def test_drawn_segments_keep_sound_and_labels_together() -> None:
    """Speed, place and pauses change; the phase of the sound still says which moment of the recording it is."""
    lengths, said = set(), 0
    for seed in range(12):
        segment = random_segment(np.random.default_rng(seed), repeat(ramp()), 400)
        steps = len(segment.phones)
        assert len(segment.samples) == steps * STEP and len(segment.mouth) == steps and np.abs(segment.samples).max() < 1
        quiet = (segment.mouth[:, 0] == -1) & (segment.phones == 0)
        speaking = segment.phones > 0
        clear = speaking & ~np.isnan(segment.mouth[:, 0])
        expected = 1 + np.floor((segment.mouth[clear, 0] + 1e-4) / 0.25).astype(int)
        assert (expected == segment.phones[clear]).mean() > 0.95  # both come from the same time, to a step
        power = np.square(segment.samples.reshape(steps, STEP)).mean(1)
        if quiet.any() and speaking.any():
            assert np.median(power[quiet]) < 0.3 * np.median(power[speaking])
        moves = np.diff(segment.mouth[:, 0])[clear[1:] & clear[:-1]]
        assert ((moves > 0.017) & (moves < 0.0231)).mean() > 0.9  # 0.9 to 1.1 times 20 ms
        lengths.add(steps)
        said += int(speaking.sum())
    assert 400 in lengths and min(lengths) < 200 and said > 1500


def test_augmented_and_padded_mels() -> None:
    mel = whisper_mel(ramp(4.0).samples)
    changed = torch.stack([augment(np.random.default_rng(seed), mel, 200) for seed in range(8)])
    assert mel.shape == (80, 400) and 0.5 < (changed == mel).float().mean() < 1
    segment = first_segment(ramp(4.0), 200)
    long, phones, mouth = pad_segment(mel, segment, 250)
    assert long.shape == (80, 500) and phones.shape == (250,) and mouth.shape == (250, 1) and (phones[200:] == UNLABELLED).all()


def test_the_same_index_gives_the_same_segment(speech: Path) -> None:
    one, again, other = (dataset(speech, True)[SampleIndex(place, 1)] for place in (7, 7, 8))
    assert torch.equal(one.mel, again.mel) and torch.equal(one.phones, again.phones) and not torch.equal(one.mel, other.mel)
    batch = collate([one, other])
    assert batch.mel.shape == (2, 80, 2 * CONTEXT) and batch.phones.shape == (2, CONTEXT) and batch.mouth.shape == (2, CONTEXT, 2)


def test_recordings_that_cannot_be_used(speech: Path, tmp_path: Path) -> None:
    good = write_recording(tmp_path / "good.wav", 1)
    (tmp_path / "noise.wav").write_bytes(b"no wave")
    write_recording(tmp_path / "alone.wav", 2).with_suffix(".json").unlink()
    write_recording(tmp_path / "short.wav", 2, seconds=0.45)
    catalog = open_recordings(tmp_path)
    assert [clip.path for clip in catalog.clips] == [good] and len(catalog.rejected) == 3
    assert read_vocabulary(good) == VOCABULARY
    with pytest.raises(InputError, match="other phones"):
        read_recording(good, Vocabulary(("sil",), CHANNELS))
    good.with_suffix(".json").write_text(json.dumps({"symbols": SYMBOLS, "mouth": {"channels": CHANNELS, "values": [1]}}))
    with pytest.raises(InputError, match="does not hold phones"):
        read_recording(good, VOCABULARY)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no recording of speech"):
        open_recordings(tmp_path / "none")


def test_damaged_labels_do_not_cost_the_segment(speech: Path, tmp_path: Path) -> None:
    for seed in range(3):
        write_recording(tmp_path / f"{seed}.wav", seed)
    data = SpeechDataset(open_recordings(tmp_path), VOCABULARY, context=1500, seed=1, is_varied=True)
    (tmp_path / "2.json").write_text("{")
    samples = [data[SampleIndex(place, 0)] for place in range(4)]
    problems = [problem for sample in samples for problem in sample.problems]
    assert problems and all("2.json" in problem and "another one" in problem for problem in problems)


def trainee() -> AudioEncoderTrainee:
    torch.manual_seed(0)
    return AudioEncoderTrainee(DIMS, torch.tensor([[0.3, 0.4], [0.3, 0.5]]))


def test_states_are_those_of_use(speech: Path) -> None:
    network, mel = trainee().eval(), torch.randn(2, 80, 2 * CONTEXT)
    output = network(mel)
    states = torch.stack(output.states, 2)  # b t l d
    for segment, expected in zip(mel, states, strict=True):
        assert torch.allclose(Audio2Feature(network.encoder).encode(segment), expected, atol=1e-5)
    assert output.phones.shape == (2, CONTEXT, len(SYMBOLS)) and [mouth.shape for mouth in output.mouths] == [(2, CONTEXT, 2)] * 3
    normed = network.decoder.ln(network.encoder(mel))  # Whisper's own way to its logits
    assert torch.allclose(output.phones, normed @ network.decoder.token_embedding.weight.T, atol=1e-5)


def test_losses_use_what_is_known(speech: Path) -> None:
    network = trainee()
    batch = collate([dataset(speech, True)[SampleIndex(place, place)] for place in range(3)])
    step = AudioEncoderStep({"phone": 1, "mouth": 1, "scale": 1})
    losses = step(network, batch)
    assert set(losses) == {"phone", "mouth", "scale"} and all(torch.isfinite(loss) for loss in losses.values())
    assert losses["phone"].item() == pytest.approx(np.log(len(SYMBOLS)), abs=0.1)
    known = ~batch.mouth.isnan().any(-1)
    guess_nothing = network.standardised(batch.mouth)[known].square().mean()
    assert losses["mouth"].item() == pytest.approx(guess_nothing.item(), rel=1e-4)
    assert set(AudioEncoderStep({"phone": 1, "mouth": 0, "scale": 0})(network, batch)) == {"phone"}
    with torch.no_grad():
        for layer in (network.encoder.blocks[0].mlp[2], network.encoder.conv2):
            layer.weight *= 30
    squares = mean_squares(network(batch.mel).states, batch.phones)
    assert len(squares) == 3 and step(network, batch)["scale"] > 10 * losses["scale"]
    sum(step(network, batch).values()).backward()
    assert [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None] == []


def recipe(speech: Path, folder: Path) -> Path:
    content = {
        "data": {
            **{"train_data_dir": str(speech / "train"), "val_data_dir": str(speech / "held out"), "train_output_dir": str(folder / "out")},
            **{"batch_size": 4, "num_workers": 0},
        },
        "model": {"n_audio_ctx": CONTEXT, "n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 2},
        "run": {"max_train_steps": 60, "validation_steps": 60, "log_steps": 5, "num_val_clips": 2, "ema_decay": 0.8},
        "optimizer": {"lr": 3e-3, "lr_warmup_steps": 5},
        "ckpt": {"save_ckpt_steps": 60},
    }
    OmegaConf.save(OmegaConf.create(content), folder / "encoder.yaml")
    return folder / "encoder.yaml"


def train(config: Path, *more: str) -> int:
    return train_audio_encoder.main(["--config_path", str(config), "--device", "cpu", "--quiet", *more])


@pytest.fixture(scope="module")
def trained(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert train(recipe(speech, folder)) == 0
    return folder


def test_training_learns_phones_and_mouth(trained: Path) -> None:
    out = trained / "out"
    assert curve(out, "training", "phone")[-1] < 0.8 * curve(out, "training", "phone")[0]
    accuracy, mouth = curve(out, "validation", "accuracy"), curve(out, "validation", "mouth_r_last")
    assert len(accuracy) == 2 and accuracy[-1] > 0.5 and accuracy[-1] > accuracy[0] + 0.2
    assert mouth[-1] > 0.5 and curve(out, "validation", "accuracy:low")[-1] < accuracy[-1]
    assert curve(out, "validation", "mouth")[-1] < curve(out, "validation", "mouth")[0]
    assert 0.1 < curve(out, "validation", "largest_square")[-1] < 10


def test_the_published_file_is_read_as_it_is(trained: Path) -> None:
    file = trained / "out" / "checkpoints" / "checkpoint-00000060.pt"
    published = torch.load(file, weights_only=True)
    assert published["global_step"] == 60 and published["phones"] == list(SYMBOLS) and published["dims"]["n_text_layer"] == 0
    assert {value.dtype for value in published["model_state_dict"].values()} == {torch.float16}
    assert published["model_state_dict"]["decoder.token_embedding.weight"].shape == (len(SYMBOLS), 32)
    assert not published["model_state_dict"]["decoder.positional_embedding"].any()
    encoder = load_whisper_encoder(file)
    windows = Audio2Feature(encoder).windows(0.1 * np.sin(np.arange(5 * AUDIO_SAMPLE_RATE, dtype=np.float32)))  # longer than a context
    frames = windows.frames(0, 125)
    assert frames.shape == (125, 10 * 3, 32) and frames.isfinite().all() and frames.std() > 0.05


def test_a_training_goes_on_and_begins_from_another(trained: Path, speech: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = trained / "out" / "checkpoints" / "checkpoint-00000060.pt"
    config = recipe(speech, tmp_path)
    start = (f"ckpt.resume_ckpt_path={file}", "run.max_train_steps=2", "run.validation_steps=2")
    assert train(config, *start) == 0
    accuracy = curve(tmp_path / "out", "validation", "accuracy")
    assert accuracy[0] == pytest.approx(curve(trained / "out", "validation", "accuracy")[-1], abs=0.02)
    assert train(config, *start[1:], "run.max_train_steps=4") == 0
    assert (tmp_path / "out" / "checkpoints" / "checkpoint-00000004.pt").is_file()
    assert train(config, *start, "model.n_audio_layer=1", f"data.train_output_dir={tmp_path / 'other'}") == 2
    assert "another audio encoder" in caplog.records[-1].getMessage()
    assert train(config, f"data.val_data_dir={speech / 'train'}", f"data.train_output_dir={tmp_path / 'same'}") == 2
    assert "both trained on and held out" in caplog.records[-1].getMessage()


def test_the_shipped_recipe_and_what_it_may_not_say(tmp_path: Path) -> None:
    config = load_audio_encoder_config(train_audio_encoder.DEFAULT_CONFIG)
    assert config.model.n_audio_state // config.model.n_audio_head == 32 and config.run.loss_weights["phone"] > 0
    (tmp_path / "copy.yaml").write_text(dump_config(config))
    assert load_audio_encoder_config(tmp_path / "copy.yaml") == config
    for override in ("model.n_audio_state=30", "model.n_audio_ctx=10", "data.train_fileslist=clips.txt", "run.loss_weights.sync=1"):
        with pytest.raises(ConfigError, match=override.split("=")[0].removesuffix(".sync")):
            load_audio_encoder_config(train_audio_encoder.DEFAULT_CONFIG, [override])
