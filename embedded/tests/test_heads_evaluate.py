"""The command that measures a model on rendered heads, from files to files: a real face, real networks at tiny sizes, real ffmpeg."""

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
from embedded.evaluate import RenderedPair, aligned_faces, find_pairs, main, measure_all, mouth_points
from embedded.landmarks import read_labels
from eval.cases import GeneratedVideos
from latentsync.config import load_syncnet_config
from latentsync.errors import ConfigError, InputError
from latentsync.faces.alignment import align_known, face_size
from latentsync.media.probe import probe
from latentsync.models.landmark_network import LandmarkNetwork, LandmarkNetworkConfig, published
from latentsync.models.syncnet import make_syncnet
from latentsync.pipelines.options import LipsyncOptions
from latentsync.weights import file_sha256

FRAMES, SIDE = 18, 64  # of a clip; pixels of the model's faces
BROWS, NOSE, LIPS = ((161, 66), (213, 70)), (188, 108), (190, 134)  # where the portrait has them in its first frame
MODEL = """
data: {resolution: 64, num_frames: 8}
model: {block_out_channels: [32, 32, 32, 32], layers_per_block: 1, cross_attention_dim: 64}
weights: {unet: latentsync_unet.pt, vae: sd-vae-ft-mse, whisper: whisper/tiny.pt}
"""


SYNCNET = {
    "data": {"resolution": SIDE, "num_frames": 2},
    "model": {
        "audio_encoder": {
            **{"in_channels": 1, "block_out_channels": [32, 32, 32, 32, 64], "attn_blocks": [0] * 5},
            "downsample_factors": [2, 2, [2, 1], [2, 1], [5, 1]],
        },
        "visual_encoder": {
            **{"in_channels": 6, "block_out_channels": [32, 32, 32, 32, 64], "attn_blocks": [0] * 5},
            "downsample_factors": [[2, 4], 2, 2, 2, 2],
        },
    },
}


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


def write_networks(folder: Path) -> None:
    """The model under test, two SyncNets, a landmark network: random, tiny."""
    write_checkpoint(folder, tiny=True)
    (folder / "model.yaml").write_text(MODEL)
    OmegaConf.save(OmegaConf.create(SYNCNET), folder / "syncnet.yaml")
    for name, seed in (("syncnet.pt", 0), ("second.pt", 1)):
        torch.manual_seed(seed)
        network = make_syncnet(load_syncnet_config(folder / "syncnet.yaml").model)
        torch.save({"state_dict": network.state_dict()}, folder / name)
    sizes = LandmarkNetworkConfig([8, 8, 16, 16], 4, 16)
    network = LandmarkNetwork(sizes, deviation=torch.full((20, 2), 0.1))
    torch.nn.init.normal_(network.head[-1].weight)
    torch.save(published(sizes, network.state_dict(), 0), folder / "landmarks.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, and clips: a pair, and one that has no other."""
    folder = tmp_path_factory.mktemp("he ads 'é")
    clips = folder / "clips"
    clips.mkdir()
    write_clip(clips / "clip_000000.mp4", 300, 0.0)
    write_clip(clips / "clip_000000_other.mp4", 700, 2.0)
    shutil.copy(clips / "clip_000000.mp4", clips / "clip_000001.mp4")
    write_networks(folder)
    return folder


def run(folder: Path, clips: str, output: Path, *more: str) -> int:
    model = [f"--unet_config_path={folder / 'model.yaml'}", "--inference_steps=1", "--guidance_scale=1", "--device=cpu"]
    meters = [
        f"--syncnet_config={folder / 'syncnet.yaml'}",
        f"--syncnet={folder / 'syncnet.pt'}",
        f"--landmark_network={folder / 'landmarks.pt'}",
    ]
    return main([f"--clips={folder / clips}", f"--output_dir={output}", *model, *meters, *more])


@pytest.fixture(scope="module")
def measured(folder: Path) -> Path:
    """The results of everything, second SyncNet and silence included."""
    output = folder / "out"
    second = [f"--second_syncnet_config={folder / 'syncnet.yaml'}", f"--second_syncnet={folder / 'second.pt'}", "--silence=1"]
    assert run(folder, "clips", output, *second) == 0
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
    assert len(clip["closed"]) == sum(
        gap < 0.02 for gap in json.loads((folder / "clips" / "clip_000000_other.json").read_text())["lip_gap_cm"]
    )
    assert clip["syncnet_pairs"]["pairs"] == clip["second_syncnet_pairs"]["pairs"] == 80
    empty = [row["name"] for row in results["rows"] if row["measured"] is None]
    assert empty == []
    assert results["weights"]["second_syncnet"] == file_sha256(folder / "second.pt") != results["weights"]["syncnet"]
    assert {"unet", "whisper", "vae/config.json", "landmark_network"} <= results["weights"].keys()


def test_the_table_and_the_figure_are_written(measured: Path) -> None:
    table = (measured / "results.md").read_text()
    assert table.count("\n| ") == len(json.loads((measured / "results.json").read_text())["rows"])
    assert "1 of 1 clips measured, 18 frames; 1 steps, guidance 1, faces of 64 px." in table
    assert "LPIPS" in table
    assert cv2.imread(str(measured / "figure.png")).shape == (24 + 3 * SIDE, 8 * SIDE, 3)
    info = probe(measured / "generated" / "clip_000000.mp4")
    assert (info.video.frame_count, info.has_audio) == (FRAMES, True)


def test_videos_of_another_model_are_not_taken(folder: Path, measured: Path, caplog) -> None:
    assert run(folder, "clips", measured, "--seed=5") == 2
    assert "name another --output_dir" in caplog.messages[-1]


class Copies:
    """Stands in for the pipeline: the source is the result, and calls are counted."""

    def __init__(self) -> None:
        self.sounds: list[float] = []  # seconds

    def __call__(self, video: Path, sound: Path, output: Path, options: LipsyncOptions) -> SimpleNamespace:
        assert options.length == "video" and options.overwrite
        self.sounds.append(probe(sound).require_audio().duration)
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, output)
        return SimpleNamespace(frames=FRAMES, generated=FRAMES // 2, warnings=("a face was hidden",))


def test_videos_are_generated_once(folder: Path, tmp_path: Path) -> None:
    (pair,), copies = find_pairs(folder / "clips"), Copies()
    videos = GeneratedVideos(tmp_path, {"unet": "1"}, lambda: copies)
    for _ in range(2):
        generated = videos.generate("a/b", pair.video, pair.reference)
        assert generated == tmp_path / "a" / "b.mp4" and generated.is_file()
    assert len(copies.sounds) == 1
    assert videos.generated_share("a/b") == 0.5
    generated.with_suffix(".json").unlink()  # as if it was stopped before the video was whole
    videos.generate("a/b", pair.video, pair.reference)
    assert len(copies.sounds) == 2
    videos.generate_silent("a/c", pair.video, 50)
    assert copies.sounds[-1] == 2.0
    for other in (GeneratedVideos(tmp_path, {"unet": "2"}, lambda: copies), videos):
        with pytest.raises(ConfigError, match="name another --output_dir"):
            other.generate("a/b", pair.video, pair.video if other is videos else pair.reference)
    assert len(copies.sounds) == 3


def test_a_clip_that_cannot_be_measured_is_named(folder: Path, caplog) -> None:
    def measure(pair: RenderedPair, number: int, generated: Path, share: float) -> str:
        if number == 1:
            raise InputError("no face")
        return pair.name

    (pair,) = find_pairs(folder / "clips")
    pairs = [replace(pair, name=name) for name in ("one", "two", "three")]
    videos = SimpleNamespace(generate=lambda *_: None, generate_silent=lambda *_: None, generated_share=lambda _: 1.0)
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
    assert run(folder, "clips", tmp_path, *more) == 2
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


def test_incomplete_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.json").write_text(json.dumps({"landmarks": [[[0, 0]]], "lip_gap_cm": [0.0]}))
    for name in ("clip.mp4", "missing.mp4"):
        with pytest.raises(InputError, match="render clips"):
            read_labels(tmp_path / name)
