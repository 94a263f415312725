"""Evaluation on rendered people: from files to files with a real face and tiny networks, and the table for known measures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from media_fixtures import encode_frames, run_ffmpeg
from omegaconf import OmegaConf
from skimage.data import astronaut

from benchmarks.write_random_checkpoint import write_checkpoint
from embedded.evaluate import (
    HEADER,
    PERCENT,
    VIDEOS,
    Aim,
    PairMeasures,
    PairTally,
    RenderedPair,
    SilenceMeasures,
    SyncMeasures,
    TableRow,
    VideoMeasures,
    aligned_faces,
    find_pairs,
    generate_silent,
    generated_share,
    landmark_distance,
    landmark_jitter,
    main,
    make_appearance,
    make_rows,
    measure_all,
    mouth_points,
    opening_follows,
    pair_accuracy,
    pixel_difference,
    pixel_jitter,
    speech_range,
)
from embedded.landmarks import read_labels
from embedded.talking_heads.aligned import align_known
from eval.cases import GeneratedVideos
from eval.estimates import mean, share
from eval.metrics.image import MOST_PSNR, appearance_distance, mouth_box
from latentsync.config import load_syncnet_config
from latentsync.errors import ConfigError, InputError
from latentsync.faces.alignment import face_size
from latentsync.media.probe import probe
from latentsync.models.landmark_network import LandmarkNetwork, LandmarkNetworkConfig, published
from latentsync.models.syncnet import make_syncnet
from latentsync.pipelines.options import LipsyncOptions
from latentsync.sync_meter import SyncReading
from latentsync.weights import file_sha256

FRAMES, SIDE = 18, 64  # of a clip; pixels of the model's faces
BROWS, NOSE, LIPS = ((161, 66), (213, 70)), (188, 108), (190, 134)  # where the portrait has them in its first frame
MODEL = """
data: {resolution: 64, num_frames: 8}
model: {block_out_channels: [32, 32, 32, 32], layers_per_block: 1, cross_attention_dim: 64}
weights: {unet: latentsync_unet.pt, vae: sd-vae-ft-mse, whisper: whisper/tiny.pt}
"""
ENCODER = {"block_out_channels": [32, 32, 32, 32, 64], "attn_blocks": [0] * 5}
SYNCNET = {
    "data": {"resolution": SIDE, "num_frames": 2},
    "model": {
        "audio_encoder": {"in_channels": 1, **ENCODER, "downsample_factors": [2, 2, [2, 1], [2, 1], [5, 1]]},
        "visual_encoder": {"in_channels": 6, **ENCODER, "downsample_factors": [[2, 4], 2, 2, 2, 2]},
    },
}
SIZES = LandmarkNetworkConfig([8, 8, 16, 16], 4, 16)


def landmarks(k: int) -> np.ndarray:
    """68 points of the portrait in frame k, only roughly those of a face: 68 2."""
    points = np.zeros((68, 2))
    points[17:22], points[22:27], points[27:36], points[48:68] = BROWS[0], BROWS[1], NOSE, LIPS
    return points + np.array((k + 0.5, 0.5))  # 0 = outer edge of the first pixel


def picture(k: int, opening: float) -> np.ndarray:
    """A portrait (NASA, public domain) that drifts to the right, with a green mouth painted on it: uint8 256 384 3."""
    frame = np.ascontiguousarray(astronaut()[:256, 40 - k : 424 - k])
    cv2.ellipse(frame, (LIPS[0] + k, LIPS[1]), (14, 1 + round(8 * opening)), 0, 0, 360, (30, 200, 30), -1)
    return frame


def write_clip(path: Path, pitch: int, phase: float) -> Path:
    """A clip as it is rendered: picture, sound, labels."""
    openings = [max(0.0, np.sin(k / 2 + phase)) for k in range(FRAMES)]
    silent = encode_frames(path.with_suffix(".mkv"), [picture(k, opening) for k, opening in enumerate(openings)], "null", "-crf", "10")
    sound = ["-f", "lavfi", "-i", f"aevalsrc=0.4*sin(2*PI*t*({pitch}+500*t)):sample_rate=16000:duration={FRAMES / 25}"]
    run_ffmpeg("-i", silent, *sound, "-c:v", "copy", "-c:a", "aac", path)
    silent.unlink()
    labels = {"lip_gap_cm": openings, "landmarks": [landmarks(k).tolist() for k in range(FRAMES)]}
    facts = {"plan": {"split": "test"}, "settings": {"width": 384, "height": 256}}
    path.with_suffix(".json").write_text(json.dumps(labels | facts))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips: a pair, and one that has no other; random, tiny networks: the model under test, two SyncNets, a landmark network."""
    folder = tmp_path_factory.mktemp("he ads 'é")
    clips = folder / "clips"
    clips.mkdir()
    write_clip(clips / "clip_000000.mp4", 300, 0.0)
    write_clip(clips / "clip_000000_other.mp4", 700, 2.0)
    shutil.copy(clips / "clip_000000.mp4", clips / "clip_000001.mp4")
    write_checkpoint(folder, tiny=True)
    (folder / "model.yaml").write_text(MODEL)
    OmegaConf.save(OmegaConf.create(SYNCNET), folder / "syncnet.yaml")
    for name, seed in (("syncnet.pt", 0), ("second.pt", 1)):
        torch.manual_seed(seed)
        network = make_syncnet(load_syncnet_config(folder / "syncnet.yaml").model)
        torch.save({"state_dict": network.state_dict()}, folder / name)
    network = LandmarkNetwork(SIZES, deviation=torch.full((20, 2), 0.1))
    torch.nn.init.normal_(network.head[-1].weight)
    torch.save(published(SIZES, network.state_dict(), 0), folder / "landmarks.pt")
    return folder


def run(folder: Path, output: Path, *more: str) -> int:
    files = {"clips": "clips", "unet_config_path": "model.yaml", "syncnet_config": "syncnet.yaml", "syncnet": "syncnet.pt"}
    named = [f"--{option}={folder / name}" for option, name in (files | {"landmark_network": "landmarks.pt"}).items()]
    return main([*named, f"--output_dir={output}", "--inference_steps=1", "--guidance_scale=1", "--device=cpu", *more])


@pytest.fixture(scope="module")
def measured(folder: Path) -> Path:
    """The results of everything, second SyncNet and silence included."""
    output = folder / "out"
    second = [f"--second_syncnet_config={folder / 'syncnet.yaml'}", f"--second_syncnet={folder / 'second.pt'}", "--silent_clips=1"]
    assert run(folder, output, *second) == 0
    return output


def test_all_measures_are_there(folder: Path, measured: Path) -> None:
    results = json.loads((measured / "results.json").read_text())
    (clip,) = results["clips"]
    videos = clip["videos"]
    assert (clip["frames"], clip["generated_share"]) == (FRAMES, 1)
    assert videos["reference"]["lmd"] == videos["reference"]["appearance"] == videos["reference"]["l1"] == 0
    assert videos["source"]["lmd"] > 0 and videos["generated"]["l1"] > videos["source"]["l1"] > 0
    assert len(videos["generated"]["syncnet"]["new"]["cosines"]) == len(videos["source"]["second_syncnet"]["old"]["cosines"]) == 31
    assert len(results["silence"][0]["opening"]) == len(results["silence"][0]["source_opening"]) == FRAMES
    assert len(clip["closed"]) == int((read_labels(folder / "clips" / "clip_000000_other.mp4").lip_gap < 0.02).sum())
    assert clip["syncnet_pairs"]["pairs"] == clip["second_syncnet_pairs"]["pairs"] == 80
    assert all(row["measured"] is not None for row in results["rows"])
    assert results["weights"]["second_syncnet"] == file_sha256(folder / "second.pt") != results["weights"]["syncnet"]
    assert {"unet", "whisper", "vae/config.json", "landmark_network"} <= results["weights"].keys()


def test_the_table_and_the_figure_are_written(measured: Path) -> None:
    table = (measured / "results.md").read_text()
    assert table.count("\n| ") - 1 == len(json.loads((measured / "results.json").read_text())["rows"])
    assert "1 of 1 clips measured, 18 frames; 1 steps, guidance 1, faces of 64 px." in table and "LPIPS" in table
    assert cv2.imread(str(measured / "figure.png")).shape == (24 + 3 * SIDE, 8 * SIDE, 3)
    info = probe(measured / "generated" / "clip_000000.mp4")
    assert (info.video.frame_count, info.has_audio) == (FRAMES, True)


def test_videos_are_generated_once_and_for_one_sound(folder: Path, tmp_path: Path) -> None:
    seconds = []

    def copy(video: Path, sound: Path, output: Path, options: LipsyncOptions) -> SimpleNamespace:
        """Stands in for the pipeline: the source is the result."""
        assert options.length == "video" and options.overwrite
        seconds.append(probe(sound).require_audio().duration)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, output)
        return SimpleNamespace(frames=FRAMES, generated=FRAMES // 2, warnings=())

    (pair,), videos = find_pairs(folder / "clips"), GeneratedVideos(tmp_path, {"unet": "1"}, lambda: copy)
    paths = [videos.generate("a/b", pair.video, pair.reference) for _ in range(2)]
    assert paths == [tmp_path / "a" / "b.mp4"] * 2 and paths[0].is_file() and len(seconds) == 1
    assert generated_share(videos, "a/b") == 0.5
    paths[0].with_suffix(".json").unlink()  # as if it was stopped before the video was whole
    videos.generate("a/b", pair.video, pair.reference)
    generate_silent(videos, "a/c", pair.video, 50)
    assert len(seconds) == 3 and seconds[-1] == 2.0
    for other, sound in ((GeneratedVideos(tmp_path, {"unet": "2"}, lambda: copy), pair.reference), (videos, pair.video)):
        with pytest.raises(ConfigError, match="name another --output_dir"):
            other.generate("a/b", pair.video, sound)
    assert len(seconds) == 3


def test_a_clip_that_cannot_be_measured_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr("embedded.evaluate.generate_silent", lambda *_: None)
    monkeypatch.setattr("embedded.evaluate.generated_share", lambda *_: 1.0)

    def measure(pair: RenderedPair, number: int, generated: Path, share: float) -> str:
        if number == 1:
            raise InputError("no face")
        return pair.name

    (pair,) = find_pairs(folder / "clips")
    pairs = [replace(pair, name=name) for name in ("one", "two", "three")]
    videos = SimpleNamespace(generate=lambda *_: None)
    meter = SimpleNamespace(measure=measure, measure_silence=lambda pair, _: f"silent {pair.name}")
    assert measure_all(pairs, 1, videos, meter) == (["one", "three"], ["silent one"], {"two": "no face"})
    assert "two is left out: no face" in caplog.messages
    with pytest.raises(InputError, match="Not one of 1 clips"):
        measure_all(pairs[1:2], 1, videos, SimpleNamespace(measure=lambda *_: measure(pair, 1, Path(), 1.0)))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--second_syncnet=x.pt"], "give both --second_syncnet_config and --second_syncnet"),
        (["--landmark_network=x.pt"], "x.pt"),
        (["data.resolutoin=64"], "resolution"),
        (["--clips=nowhere"], "nowhere is not a folder"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(folder: Path, tmp_path: Path, caplog, more: list[str], sentence: str) -> None:
    assert run(folder, tmp_path, *more) == 2
    assert sentence in caplog.messages[-1]
    assert list(tmp_path.iterdir()) == []


def test_known_landmarks_lie_on_the_aligned_face(folder: Path) -> None:
    """A mark painted at a landmark is found where the landmark is said to be."""
    (pair,) = find_pairs(folder / "clips")
    labels = read_labels(pair.video)
    matrices = align_known(labels.landmarks, 128)
    mouth = mouth_points(labels.landmarks, matrices, 128)
    faces = aligned_faces(pair.video, matrices, 128).float()
    red, green, blue = faces[3].unbind(-1)
    y, x = ((green > red + 60) & (green > blue + 60)).nonzero().float().mean(0).tolist()
    assert (x + 0.5) / 128 == pytest.approx(float(mouth[3, 0, 0]), abs=0.03)
    assert (y + 0.5) / 128 == pytest.approx(float(mouth[3, 0, 1]), abs=0.03)
    assert mouth.shape == (FRAMES, 20, 2) and face_size(128) == (105, 140)


def test_aims_and_rows_of_the_table() -> None:
    assert Aim(">=", 0.9).met(mean([0.9])) and not Aim(">=", 0.9).met(mean([0.8]))
    assert Aim("<=", 0.9).met(mean([0.9])) and not Aim("<", 0.9).met(mean([0.9]))
    assert Aim("about", 0.5).met(share([True, False] * 9)) and not Aim("about", 0.5).met(share([True] * 18))
    assert Aim("<", 0.9).met(None) is None and Aim("about", 0.5).met(mean([0.5])) is None
    rows = [
        TableRow("first", share([True] * 20), share([True] * 10 + [False] * 10), aim=Aim(">=", 0.95), control=Aim("<", 0.2), unit=PERCENT),
        TableRow("second", mean([1.5]), None, mean([1.25]), Aim("<=", 1.2)),
        TableRow("third", None, aim=Aim("<=", 1.2)),
    ]
    control = "50 % (29.9 % to 70.1 %); must be < 20 %: **no**"
    assert rows[0].cells() == ("first", ">= 95 %", "100 % (83.9 % to 100 %)", "yes", control, "-", "20")
    assert rows[1].cells() == ("second", "<= 1.2", "1.5", "**no**", "-", "1.25", "1")
    assert rows[2].cells() == ("third", "<= 1.2", *"-----") and len(HEADER) == 7
    assert (rows[0].met, rows[0].control_met) == (True, False)


def video(old: int, new: int, confidence: float, second: bool, lmd: float) -> VideoMeasures:
    """A video whose offsets, confidence and distances are known; lips open from 0.01 to 0.05."""
    sync = SyncMeasures(SyncReading(old, 0.3, (0.0,)), SyncReading(new, confidence, (0.0,)))
    opening = np.linspace(0.01, 0.05, 101).tolist()
    return VideoMeasures(sync, sync if second else None, opening, 1 - lmd, lmd, 2 * lmd, 3.0, 30.0, 0.001 + lmd / 100, 1.0)


def pairs(second: bool) -> list[PairMeasures]:
    """Four clips, one of which is generated a frame late."""
    found = []
    for number in range(4):
        videos = video(5, int(number == 0), 0.36, second, 0.02), video(0, 7, 0.08, second, 0.1), video(5, 0, 0.4, second, 0.0)
        tally = PairTally(40, 38, 20)
        measured = dict(zip(VIDEOS, videos, strict=True))
        found.append(PairMeasures(f"{number}", 101, 1.0, tally, tally if second else None, [0.01], 0.1, 0.005, measured))
    return found


def test_rows_say_what_was_measured() -> None:
    silence = [SilenceMeasures("0", [0.01, 0.0136], [0.03, 0.03])]
    rows = {row.name: row for row in make_rows(pairs(True), silence, "features")}
    values = {
        name: [None if part is None else round(part.value, 4) for part in (row.measured, row.source, row.reference)]
        for name, row in rows.items()
    }
    assert values["accuracy of the SyncNet on renders of unseen people and voices"] == [0.95, None, None]
    assert values["... of the SyncNet with shuffled labels (control)"] == [0.5, None, None]
    assert values["SyncNet of the training: offset 0 to the old sound"] == [0, 1, 0]
    assert values["SyncNet of the training: offset 0 to the new sound"] == [0.75, 0, 1]
    assert values["lip opening against the known one, Pearson r within a clip"] == [0.98, 0.9, 1]
    assert values["second SyncNet: offset 0"] == [0.75, 0, 1]
    assert values["second SyncNet: offset of one frame at most"] == [1, 0, 1]
    assert values["second SyncNet: confidence, share of the reference's"] == [0.9, 0.2, None]
    assert values["LMD of the mouth, share of the source's"] == [0.2, None, 0]
    assert values["features: share of the source's"] == [0.2, None, 0]
    assert values["jitter of the mouth's landmarks, share of the reference's"] == [1.2, 2, None]
    silent = [values[name] for name in values if name.startswith("silence")]
    assert silent == [[pytest.approx(0.05), pytest.approx(0.5556, abs=1e-3), None]]  # of a range of 0.036 above 0.01
    assert [row.met for row in rows.values() if row.name.startswith("second SyncNet: offset")] == [False, True]
    assert rows["second SyncNet: confidence, share of the reference's"].control_met is True


def test_rows_without_a_second_syncnet_and_without_silence_stay_empty() -> None:
    rows = make_rows(pairs(False), [], "features")
    empty = [row.name for row in rows if row.measured is None]
    assert len(empty) == 7 and all("second SyncNet" in name or "silence" in name for name in empty)


def test_distance_and_jitter_of_landmarks() -> None:
    still = torch.rand(10, 20, 2, generator=torch.Generator().manual_seed(0))[:1].expand(10, -1, -1)
    assert landmark_distance(still, still) == 0
    assert landmark_distance(still + torch.tensor([0.03, -0.04]), still) == pytest.approx(0.05, rel=1e-4)
    moving = still + 0.01 * torch.arange(10)[:, None, None]
    trembling = moving + 0.002 * torch.tensor([1.0, -1.0] * 5)[:, None, None] * torch.tensor([1.0, 0.0])
    assert landmark_jitter(moving) == pytest.approx(0, abs=1e-6) and landmark_jitter(still[:2]) == 0
    assert landmark_jitter(trembling) == pytest.approx(0.008, rel=1e-3)  # second differences of +a, -a, +a are 4 a


def test_the_opening_follows_the_reference() -> None:
    reference = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert opening_follows((0.02 + 0.1 * reference).float(), reference) == pytest.approx(1, abs=1e-5)
    assert opening_follows(-reference, reference) == pytest.approx(-1)
    assert opening_follows(reference, torch.zeros(20)) is None


def test_silence_is_a_share_of_the_speech_range() -> None:
    found = speech_range(np.linspace(0.01, 0.11, 1001), np.array([0.015, 0.025]))
    assert (found.closed, found.high - found.low) == (pytest.approx(0.02), pytest.approx(0.09))
    assert found.share(np.array([0.02, 0.029])) == pytest.approx([0, 0.1])
    assert speech_range(np.linspace(0, 1, 9), np.array([])) is speech_range(np.ones(9), np.array([0.1])) is None


def faces(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (count, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_pixels_count_inside_the_mouth_box_alone() -> None:
    rows, columns = mouth_box(SIDE)
    real = faces(6).clamp(max=235)
    other = torch.full_like(real, 255)
    other[:, rows, columns] = real[:, rows, columns]
    assert pixel_difference(other, real) == (0, MOST_PSNR) and pixel_jitter(other) == pytest.approx(pixel_jitter(real))
    other[:, rows, columns] += 20
    assert pixel_difference(other, real) == (pytest.approx(20), pytest.approx(10 * np.log10(255**2 / 400)))


def test_features_of_a_classifier_stand_in_for_lpips() -> None:
    name, distance = make_appearance(None)
    assert "standing in for LPIPS" in name
    real, other = faces(20), faces(20, seed=1)
    assert appearance_distance(distance, real, real) == 0 and appearance_distance(distance, other, real) > 0.01
    near = appearance_distance(distance, torch.cat([other[:5], real[5:]]), real)
    assert near == pytest.approx(appearance_distance(distance, other[:5], real[:5]) / 4, rel=1e-3)  # a mean over frames


def test_pairs_that_belong_together_are_classified() -> None:
    moments = torch.nn.functional.normalize(torch.rand(60, 16, generator=torch.Generator().manual_seed(0)) ** 6, dim=1)
    tally = pair_accuracy(moments, moments, 3, 400, np.random.default_rng(3))
    assert tally.pairs == 400 and tally.right > 340 and 160 < tally.right_shuffled < 240
    assert 160 < pair_accuracy(moments, moments.flip(0), 3, 400, np.random.default_rng(3)).right < 240
    with pytest.raises(InputError, match="shorter than 2 windows"):
        pair_accuracy(moments[:2], moments[:2], 3, 4, np.random.default_rng(0))
