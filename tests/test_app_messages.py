"""What the app says and shows, without networks: progress, reports, the strip of time, people, the command line."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_inference_command import picture, write_video

import gradio_app
from latentsync.app.messages import describe_result, output_runs, without_paths
from latentsync.app.people import PeopleFinder, data_address
from latentsync.app.ui import strip_of, view
from latentsync.faces.plan import SkippedRun
from latentsync.faces.selection import FaceChoice
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import LipsyncResult

ROOT = Path(__file__).parents[1]


def result(frames: int, source: int, skipped: tuple[SkippedRun, ...] = (), warnings: tuple[str, ...] = ()) -> LipsyncResult:
    left = sum(run.stop - run.start for run in skipped)
    sizes = {"width": 640, "height": 480, "fps": 25.0, "frames": frames, "source_frames": source, "generated": frames - left}
    rest = {"duration": frames / 25, "seed": 7, "batch_clips": 1, "spans": (), "seconds": {"total": 40.0}, "peak_device_bytes": None}
    paths = {"video_path": Path("/home/a/talk.mp4"), "audio_path": Path("/home/a/words.wav"), "output_path": Path("/x/result.mp4")}
    return LipsyncResult(**paths, **sizes, **rest, skipped=skipped, warnings=warnings)


def test_the_report_in_words() -> None:
    skipped = (SkippedRun(205, 233, "no face"), SkippedRun(300, 301, "face of another person"))
    warnings = ("Left as they are: frames ...", "/home/a/words.wav is silent: there are no words to move the mouth to.")
    assert describe_result(result(340, 340, skipped, warnings)) == [
        "311 of 340 frames synced.",
        "1 frame left as it was (face of another person): 12.0 s.",
        "28 frames without a face left as they were: 8.2-9.3 s.",
        "words.wav is silent: there are no words to move the mouth to.",
    ]
    assert describe_result(result(24, 24)) == ["All 24 frames synced."]


def test_stretches_follow_a_video_that_turns_round() -> None:
    made = result(25, 10, (SkippedRun(8, 10, "no face"),))
    assert [(run.start, run.stop, run.reason) for run in output_runs(made)] == [(0, 8, ""), (8, 12, "no face"), (12, 25, "")]
    assert "plays forwards and backwards" in " ".join(describe_result(made))
    strip = view("strip", *strip_of(made))
    assert strip.count("<i ") == 3
    assert 'style="width:16.000%" title="0.3-0.5 s: left as it was (no face)"' in strip


def test_no_text_of_a_user_becomes_part_of_the_page() -> None:
    assert "<script" not in view("notice", "This did not work", '<script>alert("x")</script>.mp4 is empty', "failed")
    assert without_paths("/a/b.mp4 is worse than /a/b.mp4.wav", {Path("/a/b.mp4"): "b.mp4", Path("/a/b.mp4.wav"): "c.wav"}) == (
        "b.mp4 is worse than c.wav"
    )


def test_the_people_of_a_video_can_be_told_apart(tmp_path: Path) -> None:
    small = cv2.resize(picture(0), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    canvas = np.full((256, 384 + small.shape[1], 3), 120, np.uint8)
    canvas[:, :384], canvas[: small.shape[0], 384:] = picture(0), small
    video = write_video(tmp_path / "two.mp4", [canvas] * 12)
    for (thumbnail, points), (low, high) in zip(PeopleFinder()(video, longest=60), ((100, 300), (384, 600)), strict=True):
        assert LipsyncOptions(face=points).face == points
        first, second = FaceChoice.parse(points).points
        assert low < first.x < high
        assert (int(first.seconds * 25), int(second.seconds * 25)) == (3, 9)
        jpeg = base64.b64decode(data_address(thumbnail).partition(",")[2])
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (144, 144, 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--auth", "anna"], "NAME:PASSWORD"),
        (["--auth", ":secret"], "NAME:PASSWORD"),
        (["--concurrency", "0"], "--concurrency"),
        (["--max_pixels", "4k"], "--max_pixels"),
        (["--device", "abacus"], "--device abacus is unknown"),
        (["--checkpoint", "my.pt"], "Weights are missing: my.pt"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_a_wrong_command_line_ends_with_a_sentence(arguments: list[str], sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    assert gradio_app.main(arguments) == 2
    assert sentence in caplog.messages[-1]
