"""The app without its page: the queue, the cache of models, cancelling, memory, files of sessions."""

import asyncio
import gc
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch
from app_fixtures import clips, tiny_models
from refusals import refused
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from latentsync.app.handlers import Handlers, Sessions, UploadLimit
from latentsync.app.jobs import WORK, JobQueue, JobRequest, JobStage, QueuedJob
from latentsync.app.messages import describe_progress, mouth_places
from latentsync.app.models import EMBEDDED_KEY, find_models
from latentsync.app.people import PeopleFinder
from latentsync.config import dump_config, load_config
from latentsync.errors import InputError, WeightsError
from latentsync.media.files import write_text
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.options import LipsyncOptions

PATIENCE = 120  # seconds that a job may take on a machine with other work


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(tiny_models("tiny", "other")) as queue:
        yield queue


def idle_queue(monkeypatch: pytest.MonkeyPatch) -> JobQueue:
    """A queue whose jobs wait for ever."""
    monkeypatch.setattr(JobQueue, "_work", lambda *_: None)
    return JobQueue(tiny_models())


def request(model: str = "tiny", steps: int = 1, sound: str = "short", **more: object) -> JobRequest:
    options = LipsyncOptions(inference_steps=steps, guidance_scale=1.0, **more)
    return JobRequest(clips()["talk"], clips()[sound], options, model, max_minutes=1)


def finish(job: QueuedJob) -> QueuedJob:
    until(lambda: job.stage.is_end)
    return job


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def tensor_bytes() -> int:
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_models_are_loaded_once_and_memory_does_not_grow(queue: JobQueue, tmp_path: Path) -> None:
    tensors, resident = {}, {}
    for number in range(1, 5):
        assert finish(queue.submit(request(), "anna", tmp_path / str(number))).stage is JobStage.DONE
        tensors[number], resident[number] = tensor_bytes(), psutil.Process().memory_info().rss
    assert queue.model_cache.loads == 1
    assert tensors[4] == tensors[2]
    assert resident[4] - resident[2] < 30e6, resident
    assert len(list(tmp_path.glob("*/talk_new_words.mp4"))) == len(list(tmp_path.glob("*/before.mp4"))) == 4


def test_another_model_takes_the_place_of_the_first() -> None:
    cache = tiny_models("tiny", "other")
    for key in ("tiny", "other", "other", "tiny"):
        with cache.use(key) as pipeline:
            assert pipeline.progress_bar(total=1).disable
        assert cache.loaded == key
    assert cache.loads == 3
    refused(InputError, "no model 'third' here: choose one of tiny, other", cache.choice, "third")


def test_the_original_plays_beside_the_result_frame_by_frame(queue: JobQueue, tmp_path: Path) -> None:
    job = finish(queue.submit(request(sound="words"), "anna", tmp_path / "job"))  # 24 frames of sound, 20 of picture
    before, made = (list(VideoReader(path).frames()) for path in (job.comparison_video, job.result.output_path))
    source = list(VideoReader(clips()["talk"]).frames())
    assert len(before) == len(made) == 24
    for frame, shown in ((0, 0), (19, 19), (23, 16)):
        assert abs(before[frame].astype(int) - source[shown]).mean() < 8
    (second, x, y, enlarged), *more = mouth_places(job.result)
    assert (second, more) == (0, [])
    assert (x, y, enlarged) == pytest.approx((195 / 384, 130 / 256, 256 / 120 / 0.6), abs=0.02)  # the lower half of the fixed face


def test_cancel_stops_a_running_job_and_frees_the_worker(queue: JobQueue, tmp_path: Path) -> None:
    running = queue.submit(request(steps=900), "anna", tmp_path / "running")
    waiting = queue.submit(request(), "ben", tmp_path / "waiting")
    later = queue.submit(request(), "carl", tmp_path / "later")
    until(lambda: running.stage is JobStage.GENERATE)
    assert [queue.progress(job).ahead for job in (waiting, later)] == [1, 2]
    assert queue.progress(running).share < 0.5
    queue.cancel(waiting)
    assert waiting.stage is JobStage.CANCELLED
    queue.cancel(running)
    assert finish(running).stage is JobStage.CANCELLED
    assert finish(later).stage is JobStage.DONE
    assert list((tmp_path / "running").iterdir()) == []
    assert not (tmp_path / "waiting").exists()
    assert queue.counts() == (0, 0)


def test_a_failing_job_says_why_and_the_next_one_runs(queue: JobQueue, tmp_path: Path, monkeypatch) -> None:
    far = queue.submit(request(face="5,5@99"), "anna", tmp_path / "far")
    assert finish(far).stage is JobStage.FAILED
    assert "99 seconds is after the last frame" in far.error
    with queue.model_cache.use("tiny") as pipeline:
        monkeypatch.setattr(pipeline.audio_encoder, "windows", lambda *_: 1 / 0)
    broken = finish(queue.submit(request(), "anna", tmp_path / "broken"))
    assert broken.error == "There was an unexpected failure (ZeroDivisionError: division by zero)."
    monkeypatch.undo()
    assert finish(queue.submit(request(), "anna", tmp_path / "fine")).stage is JobStage.DONE
    monkeypatch.setattr(queue.model_cache, "_load", Mock(side_effect=WeightsError("tiny.pt is missing: put it there.")))
    assert finish(queue.submit(request("other"), "anna", tmp_path / "missing")).error == "tiny.pt is missing: put it there."


def test_two_jobs_at_once_share_one_model(tmp_path: Path) -> None:
    with JobQueue(tiny_models(), concurrency=2) as queue:
        first = queue.submit(request(steps=900), "anna", tmp_path / "1")
        until(lambda: first.stage is JobStage.GENERATE)
        second = finish(queue.submit(request(), "ben", tmp_path / "2"))
        assert (second.stage, first.stage) == (JobStage.DONE, JobStage.GENERATE)
        queue.cancel(first)
        assert finish(first).stage is JobStage.CANCELLED
        assert queue.model_cache.loads == 1


def test_who_asks_for_another_model_first_is_served_first() -> None:
    cache, served = tiny_models("a", "b"), []

    def use(key: str, name: str) -> None:
        with cache.use(key):
            served.append(name)

    with cache.use("a"):
        threads = []
        for key, name in (("b", "switch"), ("a", "late")):
            threads.append(threading.Thread(target=use, args=(key, name)))
            threads[-1].start()
            time.sleep(0.1)
        assert served == []  # the second one does not overtake the first, though its model is there
    for thread in threads:
        thread.join(PATIENCE)
    assert served == ["switch", "late"]


def test_too_long_or_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = JobRequest(clips()["talk"], clips()["words"], LipsyncOptions(), "tiny", max_minutes=-0.01)
    refused(InputError, r"words.wav lasts 0.0 minutes and .* allowed here", long.check)
    JobRequest(clips()["talk"], clips()["words"], LipsyncOptions(), "tiny", 1 / 60).check_length(1.5)  # a limit is not meant to the sample
    unknown = QueuedJob(JobRequest(clips()["talk"], clips()["words"], LipsyncOptions(), "tiny", 0.01), "anna", Path())
    unknown.advance("analyse", 1, None)
    refused(InputError, "allowed here", unknown.advance, "analyse", 60, None)
    large = JobRequest(clips()["talk"], clips()["words"], LipsyncOptions(), "tiny", max_pixels=98_303)
    refused(InputError, r"talk.mp4 has .* pixels, .* and 0.1 million are allowed here", large.check)
    monkeypatch.setattr("latentsync.app.jobs.MAX_WAITING", 1)
    crowd = idle_queue(monkeypatch)
    crowd.submit(request(), "anna", tmp_path / "first")
    refused(InputError, "jobs are waiting already", lambda: crowd.submit(request(), "ben", tmp_path / "last"))


def test_a_session_has_a_share_of_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, same = idle_queue(monkeypatch), request()
    monkeypatch.setattr(JobRequest, "check", lambda _: None)
    for number in range(4):
        queue.submit(same, "anna", tmp_path / str(number))
    refused(InputError, "4 of your jobs are waiting already", lambda: queue.submit(same, "anna", tmp_path))
    for number in range(8):
        queue.submit(same, f"ben{number}", tmp_path, "192.0.2.7")
    refused(InputError, "8 jobs from your address are waiting", lambda: queue.submit(same, "ben", tmp_path, "192.0.2.7"))
    queue.submit(same, "carl", tmp_path, "127.0.0.1")


def test_progress_of_the_whole_job_never_goes_back(queue: JobQueue, tmp_path: Path) -> None:
    told = []
    for number in range(2):
        job = queue.submit(request(steps=30), "anna", tmp_path / str(number))
        told.append([])
        while not job.stage.is_end:
            told[-1].append(queue.progress(job))
            time.sleep(0.005)
        assert job.stage is JobStage.DONE
    for progress in told:
        shares = [now.share for now in progress if now.share is not None]
        left = [now.seconds_left for now in progress if now.seconds_left is not None]
        assert shares == sorted(shares)
        assert left == sorted(left, reverse=True)
        assert shares[-1] > 0.5
    running = [now for now in told[1] if now.share is not None]
    assert None not in {now.seconds_left for now in running}, "the second job knows from its beginning how long it takes"


def test_place_and_time_in_line(queue: JobQueue, tmp_path: Path) -> None:
    first = queue.submit(request(steps=900), "anna", tmp_path / "1")
    second = queue.submit(request(), "ben", tmp_path / "2")
    assert describe_progress(queue.progress(second)) == "Place 2 in line."
    for stage in WORK:
        first.pace.learn(stage, request(), 8, 40)
    third = queue.submit(request(), "carl", tmp_path / "3")
    assert queue.progress(third).seconds_ahead > second.expected_seconds() == pytest.approx(120, rel=0.3)  # the first learns, too
    assert "Place 3 in line: it begins in about" in describe_progress(queue.progress(third))


def test_files_of_a_session_go_with_it(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "mine.mp4"
    shared, own, last = root / "a1" / "same.mp4", root / "b2" / "own.mp4", root / "c3" / "last.mp4"
    for file in (outside, shared, own, last):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 10)
    sessions = Sessions(root, max_bytes=25)
    for key, file in (("anna", shared), ("anna", own), ("anna", outside), ("ben", shared)):
        sessions.claim(key, file)
    sessions.end("anna")
    assert (outside.exists(), own.parent.exists(), shared.exists()) == (True, False, True)
    sessions.end("anna")  # twice does no harm
    for name in ("new", "newer"):
        file = root / name / "x.mp4"
        file.parent.mkdir()
        file.write_bytes(b"x" * 10)
        sessions.claim("ben", file)
    assert [shared.exists(), file.exists()] == [False, True], "the oldest goes where all are too large"
    sessions.end("ben")
    assert list(root.iterdir()) == [last.parent]


def handlers_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Handlers, dict[str, Path]]:
    """Handlers whose jobs wait for ever, and uploads of two sessions."""
    handlers = Handlers(idle_queue(monkeypatch), Sessions(folder), PeopleFinder())
    return handlers, {name: Path(shutil.copy(clips()["talk"], folder / f"{name}.mp4")) for name in ("anna", "ben")}


def test_a_job_stays_while_somebody_watches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers, uploads = handlers_at(tmp_path, monkeypatch)
    job = handlers.submit(str(uploads["anna"]), str(clips()["short"]), "", {"inference_steps": 1}, "anna")
    handlers.claim(str(uploads["ben"]), "ben")
    handlers.sessions.see("anna", is_page=True)
    handlers.close("anna")  # a connection broke
    handlers.tidy()
    assert handlers.job(job.id, page="anna again") is job
    assert [path.exists() for path in uploads.values()] == [True, True]
    for gone in ("", "anna", None, "../anna"):
        assert handlers.job(gone) is None
    handlers.sessions.keep_seconds = 0.2
    time.sleep(0.3)
    assert handlers.job(job.id) is job  # watched from elsewhere, just now
    handlers.tidy()
    assert [path.exists() for path in uploads.values()] == [True, False]
    time.sleep(0.3)
    handlers.tidy()
    assert (job.stage, handlers.job(job.id), uploads["anna"].exists()) == (JobStage.CANCELLED, None, False)


def test_files_of_a_program_go_after_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers, uploads = handlers_at(tmp_path, monkeypatch)
    job = handlers.submit(str(uploads["anna"]), str(clips()["short"]), "", {"inference_steps": 1}, "anna")

    async def listen_once() -> None:
        following = handlers.follow(job)
        await anext(following)
        await following.aclose()

    asyncio.run(listen_once())
    assert (job.stage, uploads["anna"].exists()) == (JobStage.CANCELLED, False)
    handlers.close("anna")
    assert handlers.job(job.id) is None


def test_uploads_that_nothing_uses_have_a_limit(tmp_path: Path) -> None:
    sessions, files = Sessions(tmp_path), [tmp_path / f"{number}.mp4" for number in range(2)]

    async def take_upload(scope: dict, receive: object, send: Callable) -> None:
        file = files[int(scope["query_string"])]
        file.write_bytes(bytes(100))
        await JSONResponse([str(file)])(scope, receive, send)

    client = TestClient(UploadLimit(take_upload, sessions, max_bytes=90))
    assert client.post("/gradio_api/upload?0").json() == [str(files[0])]
    answer = client.post("/gradio_api/upload?1")
    assert (answer.status_code, files[1].exists()) == (413, False)
    assert "Files were uploaded from here which nothing uses" in answer.text
    sessions.claim("anna", files[0])
    assert client.post("/gradio_api/upload?1").status_code == 200


def test_handlers_name_files_as_their_owner_does(tmp_path: Path) -> None:
    handlers = Handlers(JobQueue(tiny_models()), Sessions(tmp_path), PeopleFinder())
    files = {name: str(path) for name, path in clips().items()}
    cases = {
        ("", "words"): "There is no video yet",
        ("talk", ""): "There is no sound yet",
        ("words", "words"): "words.wav holds only sound",
        ("talk", "talk"): "talk.mp4 has no audio track",
    }
    for (video, audio), sentence in cases.items():
        with pytest.raises(InputError) as caught:
            handlers.submit(files.get(video), files.get(audio), "", {}, "anna")
        assert str(caught.value).startswith(sentence)
        assert str(clips()["talk"].parent) not in str(caught.value)
    refused(InputError, "inference_steps is 0", lambda: handlers.submit(files["talk"], files["words"], "", {"inference_steps": 0}, "anna"))


def test_models_that_are_there_are_listed(tmp_path: Path) -> None:
    refused(WeightsError, "No denoiser was found", find_models, root=tmp_path)
    refused(WeightsError, r"missing: .*latentsync_unet\.pt", find_models, checkpoint=tmp_path / "latentsync_unet.pt", root=tmp_path)
    root = Path(__file__).parents[1]
    for name, version in (("stage2_512.yaml", "1.6"), ("stage2.yaml", "1.5")):
        write_text(tmp_path / "configs" / "unet" / name, dump_config(load_config(root / "configs" / "unet" / name)))
        write_text(tmp_path / "checkpoints" / f"latentsync-{version}" / "latentsync_unet.pt", "x")
    write_text(tmp_path / "assets" / "embedded" / "config.yaml", "run: {inference_steps: 6}\n")
    found = find_models(root=tmp_path)
    assert [(model.key, model.sampling.inference_steps) for model in found] == [("1.6", 20), ("1.5", 20), (EMBEDDED_KEY, 6)]
    assert "a few recorded ones" in found[-1].note
