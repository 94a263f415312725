"""The command that measures sync: a folder with good and bad files, what it writes, a second run, missing weights, another network."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_fixtures import write_syncnet
from media_fixtures import encode_frames, run_ffmpeg
from skimage.data import astronaut

from eval.eval_sync_conf import main
from eval.metrics.sync import SyncConfidence, SyncResult
from latentsync.errors import InputError, StalledError


class FirstByte(SyncConfidence):
    """Knows the offset of a file by its first byte; counts how often it is asked."""

    def __init__(self) -> None:
        self.settings, self.protocol, self.measured = {}, "By the first byte.", []

    def measure(self, video: Path, sound: Path | None = None) -> SyncResult:
        self.measured.append(video.name)
        content = video.read_bytes()
        if content == b"broken":
            raise InputError(f"{video} is | no media file")
        if content == b"stalled":
            raise StalledError(f"{video} gave no answer")
        return SyncResult(content[0] - 64, 6.5 + content[0] / 100, 7.0, 1, 100)


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> FirstByte:
    found = FirstByte()

    def opened(parsed: argparse.Namespace) -> FirstByte:
        found.settings = {"published": parsed.published}
        return found

    monkeypatch.setattr("eval.eval_sync_conf.open_metric", opened)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    videos = tmp_path / "my videos"
    (videos / "in it").mkdir(parents=True)
    for name, content in {"a one.mp4": b"@", "b|.mkv": b"E", "c.mp4": b"broken", "in it/d.webm": b"@", "text.txt": b"x"}.items():
        (videos / name).write_bytes(content)
    return videos


def test_a_folder_with_a_broken_file(folder: Path, tmp_path: Path, metric: FirstByte, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--video", str(folder), "--output_dir", str(out)]
    assert main(arguments) == 0
    found = json.loads((out / "sync.json").read_text())
    assert [video["video"] for video in found["videos"]] == ["a one.mp4", "b|.mkv", "c.mp4", "in it/d.webm"]
    assert (found["measured"], found["not_measured"]) == (3, 1) and "no media file" in found["videos"][2]["reason"]
    assert [video.get("sync_offset") for video in found["videos"]] == [0, 5, None, 0]
    assert found["summary"]["sync_offset"]["median"] == 0 and found["summary"]["sync_offset"]["mean"] == pytest.approx(5 / 3)
    assert found["summary"]["sync_conf"]["low"] <= found["summary"]["sync_conf"]["mean"] <= found["summary"]["sync_conf"]["high"]
    table = (out / "sync.md").read_text()
    assert table == capsys.readouterr().out and "3 of 4 videos" in table and "Offset 0: 2 of 3" in table
    assert "| b\\|.mkv | 7.19 | 5 | 7.00 | 1 | 100 |  |" in table and (out / "sync.png").read_bytes()[:4] == b"\x89PNG"
    read = list(metric.measured)
    (out / "videos" / "a one.mp4.json").write_text('{"file": "cut sh')
    (folder / "in it/d.webm").write_bytes(b"FF")
    assert main(arguments) == 0 and metric.measured == [*read, "a one.mp4", "d.webm"]
    assert main([*arguments, "--published"]) == 0 and len(metric.measured) == 2 * len(read) + 2


def test_a_single_file_that_cannot_be_measured(folder: Path, tmp_path: Path, metric: FirstByte, caplog: pytest.LogCaptureFixture) -> None:
    assert main(["--video", str(folder / "c.mp4"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "Not one of 1 videos" in caplog.text and not (tmp_path / "out" / "sync.png").exists()
    assert json.loads((tmp_path / "out" / "sync.json").read_text())["not_measured"] == 1


def test_a_disk_without_answer_is_asked_again(folder: Path, tmp_path: Path, metric: FirstByte) -> None:
    (folder / "c.mp4").write_bytes(b"stalled")
    for _ in range(2):
        assert main(["--video", str(folder), "--output_dir", str(tmp_path / "out")]) == 0
    assert metric.measured.count("c.mp4") == 2 and len(metric.measured) == 5


def test_missing_weights_are_named_before_anything_is_done(tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = ["--video", str(folder), "--output_dir", str(tmp_path / "out"), "--checkpoints", str(tmp_path / "none")]
    assert main([*arguments, "--device", "cpu"]) == 2
    (line,) = (record.message for record in caplog.records)
    assert "sfd_face.pth" in line and "syncnet_v2.model" in line and "Hugging Face" in line and not (tmp_path / "out").exists()


def test_a_syncnet_of_this_project_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    config, weights = map(str, write_syncnet(tmp_path))
    videos = tmp_path / "videos"
    videos.mkdir()
    portrait = [np.ascontiguousarray(astronaut()[:256, 40 - k : 424 - k]) for k in range(26)]
    silent = encode_frames(tmp_path / "silent.mp4", portrait, "format=yuv420p", "-c:v", "libx264", "-crf", "8")
    run_ffmpeg("-i", silent, "-f", "lavfi", "-i", "sine=f=300:d=1.04", "-c:v", "copy", "-shortest", videos / "a face.mp4")
    shutil.copy(silent, videos / "mute.mp4")
    network = ["--syncnet_config", config, "--syncnet", weights, "--detector", "mtcnn"]
    arguments = ["--video", str(videos), "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*arguments, *network]) == 0
    found = json.loads((tmp_path / "out" / "sync.json").read_text())
    assert found["warning"].startswith("NOT Sync-C") and "**NOT Sync-C" in capsys.readouterr().out and "NOT Sync-C" in caplog.text
    face, mute = found["videos"]
    assert face["frames"] == 26 and abs(face["stable_sync_offset"]) <= 15 and 0 <= face["stable_sync_cosine"] <= 1
    assert "sync_conf" not in face and "no audio track" in mute["reason"]
    assert main([*arguments, *network[:2]]) == 2 and main([*arguments, *network, "--published"]) == 2
