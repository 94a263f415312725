"""The app without its page: the queue, the models on their shelf, cancelling, memory, files of sessions."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from app_fixtures import choice, tiny_pipeline, tiny_shelf, write_clips

from latentsync.app.handlers import FormValues, Handlers, Sessions
from latentsync.app.jobs import MOST_WAITING, JobQueue, JobRequest, JobStage, Limits, QueuedJob
from latentsync.app.models import EMBEDDED_KEY, ModelCache, find_models
from latentsync.app.people import PeopleFinder
from latentsync.config import dump_config, load_config
from latentsync.errors import InputError, WeightsError
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.options import LipsyncOptions

PATIENCE = 120  # seconds that a job may take on a machine with other work


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def shop() -> Iterator[JobQueue]:
    with JobQueue(tiny_shelf("tiny", "other")) as shop:
        yield shop


def order(clips: dict[str, Path], model: str = "tiny", steps: int = 1, sound: str = "short", **more: object) -> JobRequest:
    options = LipsyncOptions(inference_steps=steps, guidance_scale=1.0, **more)
    return JobRequest(clips["talk"], clips[sound], options, model, Limits(minutes=1), steps=steps)


def finish(ticket: QueuedJob) -> QueuedJob:
    assert ticket.wait(PATIENCE)
    return ticket


def until(condition: object) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def tensor_bytes() -> int:
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_models_are_loaded_once_and_memory_does_not_grow(clips: dict[str, Path], shop: JobQueue, tmp_path: Path) -> None:
    tensors, resident = {}, {}
    for number in range(1, 11):
        assert finish(shop.submit(order(clips), "anna", tmp_path / str(number))).stage is JobStage.DONE
        tensors[number], resident[number] = tensor_bytes(), resident_bytes()
    assert shop.shelf.loads == 1
    assert tensors[10] == tensors[2]
    assert resident[10] - resident[2] < 30e6, resident
    assert len(list(tmp_path.glob("*/talk_new_words.mp4"))) == len(list(tmp_path.glob("*/before.mp4"))) == 10


def test_another_model_takes_the_place_of_the_first(clips: dict[str, Path], shop: JobQueue, tmp_path: Path) -> None:
    for number, key in enumerate(("tiny", "other", "other", "tiny")):
        finish(shop.submit(order(clips, key), "anna", tmp_path / str(number)))
        assert shop.shelf.loaded == key
    assert shop.shelf.loads == 3
    with pytest.raises(InputError, match="no model 'third' here: choose one of tiny, other"):
        shop.shelf.choice("third")


def test_the_original_plays_beside_the_result_frame_by_frame(clips: dict[str, Path], shop: JobQueue, tmp_path: Path) -> None:
    ticket = finish(shop.submit(order(clips, sound="words"), "anna", tmp_path / "job"))  # 24 frames of sound, 20 of picture
    before, made = (list(VideoReader(path).frames()) for path in (ticket.before, ticket.result.output_path))
    source = list(VideoReader(clips["talk"]).frames())
    assert len(before) == len(made) == 24
    for frame, shown in ((0, 0), (19, 19), (23, 16)):
        assert abs(before[frame].astype(int) - source[shown]).mean() < 8


def test_cancel_stops_a_running_job_and_frees_the_worker(clips: dict[str, Path], shop: JobQueue, tmp_path: Path) -> None:
    running = shop.submit(order(clips, steps=900), "anna", tmp_path / "running")
    waiting = shop.submit(order(clips), "ben", tmp_path / "waiting")
    later = shop.submit(order(clips), "carl", tmp_path / "later")
    until(lambda: running.stage is JobStage.MAKE)
    assert [shop.progress(ticket).ahead for ticket in (waiting, later)] == [1, 2]
    assert shop.progress(running).share < 0.5
    shop.cancel(waiting)
    assert waiting.stage is JobStage.CANCELLED
    shop.cancel_owner("anna")
    assert finish(running).stage is JobStage.CANCELLED
    assert finish(later).stage is JobStage.DONE
    assert list((tmp_path / "running").iterdir()) == []
    assert not (tmp_path / "waiting").exists()
    assert shop.counts() == (0, 0)


def test_a_failing_job_says_why_and_the_next_one_runs(clips: dict[str, Path], shop: JobQueue, tmp_path: Path, monkeypatch) -> None:
    far = shop.submit(order(clips, face="5,5@99"), "anna", tmp_path / "far")
    assert finish(far).stage is JobStage.FAILED
    assert "99 seconds is after the last frame" in far.error
    with shop.shelf.use("tiny") as pipeline:
        monkeypatch.setattr(pipeline.audio_encoder, "windows", lambda *_: 1 / 0)
    broken = finish(shop.submit(order(clips), "anna", tmp_path / "broken"))
    assert broken.error == "There was an unexpected failure (ZeroDivisionError: division by zero)."
    monkeypatch.undo()
    assert finish(shop.submit(order(clips), "anna", tmp_path / "fine")).stage is JobStage.DONE


def test_two_jobs_at_once_share_one_model(clips: dict[str, Path], tmp_path: Path) -> None:
    with JobQueue(tiny_shelf(), concurrency=2) as shop:
        first = shop.submit(order(clips, steps=900), "anna", tmp_path / "1")
        until(lambda: first.stage is JobStage.MAKE)
        second = finish(shop.submit(order(clips), "ben", tmp_path / "2"))
        assert (second.stage, first.stage) == (JobStage.DONE, JobStage.MAKE)
        shop.cancel(first)
        assert finish(first).stage is JobStage.CANCELLED
        assert shop.shelf.loads == 1


def test_who_asks_for_another_model_first_is_served_first() -> None:
    shelf, served = tiny_shelf("a", "b"), []

    def use(key: str, name: str) -> None:
        with shelf.use(key):
            served.append(name)

    with shelf.use("a"):
        threads = []
        for key, name in (("b", "switch"), ("a", "late")):
            threads.append(threading.Thread(target=use, args=(key, name)))
            threads[-1].start()
            time.sleep(0.1)
        assert served == []  # the second one does not overtake the first, though its model is there
    for thread in threads:
        thread.join(PATIENCE)
    assert served == ["switch", "late"]


def test_a_model_that_cannot_be_loaded_is_a_sentence(clips: dict[str, Path], tmp_path: Path) -> None:
    def load(_: object) -> None:
        raise WeightsError("tiny.pt is missing: put it there.")

    with JobQueue(ModelCache([choice()], load)) as shop:
        assert finish(shop.submit(order(clips), "anna", tmp_path / "job")).error == "tiny.pt is missing: put it there."


def test_too_long_too_large_too_many(clips: dict[str, Path], tmp_path: Path) -> None:
    short = Limits(minutes=1 / 60, megabytes=1)
    long = JobRequest(clips["talk"], clips["words"], LipsyncOptions(), "tiny", Limits(minutes=-0.01))
    with pytest.raises(InputError, match=r"words.wav lasts 1 s and .* allowed here"):
        long.check()
    short.check_length(clips["words"], 1.5)  # a limit is not meant to the sample
    (tmp_path / "large.mp4").write_bytes(bytes(3 << 20))
    with pytest.raises(InputError, match="has 3 MB and 1 MB are allowed here"):
        short.check_file(tmp_path / "large.mp4")
    crowd = JobQueue(tiny_shelf())  # nobody works here
    for number in range(MOST_WAITING):
        crowd.submit(order(clips), "anna", tmp_path / str(number))
    with pytest.raises(InputError, match="jobs are waiting already"):
        crowd.submit(order(clips), "ben", tmp_path / "last")


def test_a_video_that_does_not_tell_its_length_is_stopped_when_it_grows_too_long(clips: dict[str, Path]) -> None:
    ticket = QueuedJob(JobRequest(clips["talk"], clips["words"], LipsyncOptions(), "tiny", Limits(minutes=0.01)), "anna", Path())
    ticket.advance("generate", 1, None)
    with pytest.raises(InputError, match="allowed here"):
        ticket.advance("generate", 60, None)


def test_files_of_a_session_go_with_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "mine.mp4"
    shared, own = root / "a1" / "same.mp4", root / "b2" / "own.mp4"
    for file in (outside, shared, own):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    sessions = Sessions(root)
    for key, file in (("anna", shared), ("anna", own), ("anna", outside), ("ben", shared)):
        sessions.claim(key, file)
    folders = {key: sessions.job_folder(key) for key in ("anna", "ben")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    assert folders["anna"].parent != folders["ben"].parent
    sessions.end("anna")
    assert (outside.exists(), own.parent.exists(), shared.exists()) == (True, False, True)
    assert [folder.exists() for folder in folders.values()] == [False, True]
    sessions.end("anna")  # twice does no harm
    sessions.end("ben")
    assert list(root.iterdir()) == []
    assert len(sessions) == 0


def test_a_desk_speaks_of_files_by_their_names(clips: dict[str, Path], tmp_path: Path) -> None:
    desk = Handlers(JobQueue(tiny_shelf()), Sessions(tmp_path), Limits(), PeopleFinder())
    cases = {
        ("", "words"): "There is no video yet",
        ("talk", ""): "There is no sound yet",
        ("words", "words"): "words.wav holds only sound",
        ("talk", "talk"): "talk.mp4 has no audio track",
    }
    for (video, audio), sentence in cases.items():
        with pytest.raises(InputError) as caught:
            desk.submit(FormValues(str(clips.get(video, "")) * bool(video), str(clips.get(audio, "")) * bool(audio)), "anna")
        assert str(caught.value).startswith(sentence)
        assert str(clips["talk"].parent) not in str(caught.value)
    with pytest.raises(InputError, match="inference_steps is 0"):
        desk.submit(FormValues(str(clips["talk"]), str(clips["words"]), steps=0), "anna")


def test_models_that_are_there_are_listed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No denoiser was found"):
        find_models(root=tmp_path)
    with pytest.raises(WeightsError, match=r"missing: .*latentsync_unet\.pt"):
        find_models(checkpoint=tmp_path / "latentsync_unet.pt", root=tmp_path)
    root = Path(__file__).parents[1]
    for name in ("stage2_512.yaml", "stage2.yaml"):
        (tmp_path / "configs" / "unet").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / "unet" / name).write_text(dump_config(load_config(root / "configs" / "unet" / name)))
    for version in ("1.5", "1.6"):
        (tmp_path / "checkpoints" / f"latentsync-{version}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"latentsync-{version}" / "latentsync_unet.pt").write_bytes(b"x")
    (tmp_path / "assets" / "embedded").mkdir(parents=True)
    (tmp_path / "assets" / "embedded" / "config.yaml").write_text("run: {inference_steps: 6}\n")
    found = find_models(root=tmp_path)
    assert [(model.key, model.resolution, model.inference_steps) for model in found] == [
        ("1.6", 512, 20),
        ("1.5", 256, 20),
        (EMBEDDED_KEY, 256, 6),
    ]
    assert "rendered faces only" in found[-1].note


def test_a_pipeline_of_the_shelf_shows_no_bars() -> None:
    shelf = tiny_shelf()
    with shelf.use("tiny") as pipeline:
        assert pipeline.progress_bar(total=1).disable
    assert tiny_pipeline() is not pipeline
