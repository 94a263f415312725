"""What the app says and shows, without networks: progress, reports, the strip of time, people, the command line."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_inference_command import picture, write_video

import gradio_app
from latentsync.app.forecast import Forecast
from latentsync.app.messages import describe_result, output_runs, without_paths
from latentsync.app.people import FaceSighting, FoundPeople, FoundPerson, PeopleFinder, data_address, place_people
from latentsync.app.ui import strip_of, view
from latentsync.app.weights_download import WeightsDownload, weights_places
from latentsync.faces.plan import SkippedRun
from latentsync.faces.selection import FaceChoice
from latentsync.faces.tracking import Person
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
    found = PeopleFinder()(video, longest=60)
    for person, (low, high) in zip(found.people, ((100, 300), (384, 600)), strict=True):
        assert LipsyncOptions(face=person.points).face == person.points
        first, second = FaceChoice.parse(person.points).points
        assert low < first.x < high and low < (person.place[0] + person.place[2] / 2) * canvas.shape[1] < high
        assert (int(first.seconds * 25), int(second.seconds * 25)) == (3, 9) and person.frame == person.turns == 0
    (frame,) = found.frames
    jpeg = base64.b64decode(data_address(frame).partition(",")[2])
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == frame.shape


def test_a_download_of_weights_says_how_it_ends(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    script = "print('  not fetched: the disk is full.', flush=True); open('checkpoints/a', 'wb').write(bytes(3 << 20)); time.sleep(60)"
    with WeightsDownload(tmp_path, ("-c", f"import time; {script}")) as download:
        assert download.line() == ""
        download.start()
        while "3 MB so far" not in download.line():
            assert download.is_running
    assert not download.is_running
    assert download.line() == "Not fetched: the disk is full. Press the button again, or put the files there yourself."
    assert any(place.path.startswith("checkpoints/whisper") for place in weights_places(tmp_path))


def test_each_person_is_shown_in_one_frame_of_few() -> None:
    def person(*numbers: int) -> Person:
        return Person([FaceSighting(number, [np.zeros(4)], point=f"1,1@{number}", place=(number,)) for number in numbers], 12)

    found = place_people([person(0, 4), person(4, 5), person(5), person(8)], list(range(9)), 100.0)
    assert (found.frames, [each.frame for each in found.people]) == ([4, 5, 8], [0, 0, 1, 2])
    assert [each.place for each in found.people] == [(4,), (4,), (5,), (8,)] and found.people[0].points == "1,1@0|1,1@4|"


def test_what_will_happen_is_one_line_and_warnings() -> None:
    two = FoundPeople([FoundPerson("", 0, (), 0), FoundPerson("", 0, (), 2)], [], 300.0)
    forecast = Forecast(two, 4.0, 6.12, 6.12, 20.0)
    assert forecast.line() == "2 people · video 4.0 s · sound 6.1 s · result 6.1 s (back and forth) · about 20 s of work"
    assert forecast.warnings() == ["A face lies upside down: if that is a mistake, turn the video first."]
    assert Forecast(video_seconds=4.0).line() == "video 4.0 s" and not Forecast().line() and not Forecast().warnings()
    small = Forecast(FoundPeople(widest=18.0), 4.0, 3.0, 3.0, is_silent=True)
    assert small.line() == "nobody found · video 4.0 s · sound 3.0 s · result 3.0 s · time not known yet"
    assert "18 pixels" in small.warnings()[0] and "silent" in small.warnings()[1]
    assert "No face was found" in Forecast(FoundPeople()).warnings()[0]


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
