"""The app in a real browser, and its API from another process: one server, Debian's Chromium without a window."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from app_fixtures import KEEP_SECONDS, Served, clips, served, tiny_models
from playwright.sync_api import Browser, Page, expect, sync_playwright

from latentsync.app import ui
from latentsync.errors import InputError
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader

BROWSER = "/usr/bin/chromium"  # Debian's
ROOT = Path(__file__).parents[1]
PATIENCE = 150_000  # milliseconds, for a machine with other work
DESKTOP, PHONE = {"width": 1360, "height": 1000}, {"width": 390, "height": 844}
NO_BROWSER = f"{BROWSER} is not installed: `apt-get install chromium` (setup_env.sh tries to), then these tests run."

in_browser = pytest.mark.skipif(not Path(BROWSER).is_file(), reason=NO_BROWSER)
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def app() -> Iterator[Served]:
    with served() as app:
        yield app


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    yield chromium
    for context in chromium.contexts:  # what a failed test left open would hold up the next one
        context.close()


def open_page(app: Served, browser: Browser, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Page:
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(app.address)
    page.wait_for_selector("#go")
    return page


def give(page: Page, video: Path, audio: Path) -> None:
    """Upload both inputs, as by dropping them."""
    page.locator("#video input[type=file]").set_input_files(video)
    page.locator("#video video").wait_for(state="attached")
    page.locator("#audio input[type=file]").set_input_files(audio)
    page.locator("#audio .timestamps, #audio #waveform").first.wait_for(state="attached")


def health(app: Served) -> dict:
    with urlopen(f"{app.address}/health") as answer:
        return json.load(answer)


def settle(app: Served) -> None:
    """Wait until nothing runs and all files of closed pages are gone, whose time is up now."""
    end = time.monotonic() + PATIENCE / 1000
    app.sessions.keep_seconds = 0.5
    while health(app)["running"] or health(app)["waiting"] or app.left_behind():
        assert time.monotonic() < end, app.left_behind()
        time.sleep(0.2)
    app.sessions.keep_seconds = KEEP_SECONDS


@in_browser
def test_from_two_files_to_a_download(app: Served, browser: Browser, tmp_path: Path) -> None:
    page, hosts = open_page(app, browser), set()
    page.on("request", lambda request: hosts.add(re.sub(r"^(\w+://[^/]*|\w+:).*", r"\1", request.url, flags=re.S)))
    give(page, clips()["talk"], clips()["words"])
    line = page.locator(".ls-forecast p")
    expect(line).to_have_text("1 person · video 0.8 s · sound 1.0 s · result 1.0 s (back and forth) · time not known yet")
    assert not page.locator(".ls-people button").count(), "nobody is asked who where there is one person"
    assert page.locator("#quality input").first.is_disabled() and "one step" in page.locator("#quality").inner_text()
    page.click("#go")
    expect(page.get_by_role("progressbar", name="The whole job")).to_be_visible()
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".ls-report h3")).to_have_text("All 24 frames synced.")
    assert "forwards and backwards" in page.locator(".ls-report").inner_text()
    expect(page.locator(".ls-model")).to_contain_text("Loaded and ready.")
    with page.expect_download() as download:
        page.click(".ls-download")
    assert download.value.suggested_filename == "talk_new_words.mp4"
    download.value.save_as(tmp_path / "result.mp4")
    assert len(list(VideoReader(tmp_path / "result.mp4").frames())) == 24
    assert probe(tmp_path / "result.mp4").has_audio
    check_player(page)
    assert hosts <= {app.address, "data:", "blob:"}, "the page asked somebody else"
    page.context.close()
    settle(app)


@in_browser
def test_people_are_boxes_and_one_speaks(app: Served, browser: Browser) -> None:
    page = open_page(app, browser)
    give(page, clips()["two"], clips()["short"])
    first, second = (page.locator(".ls-people button").nth(number) for number in (0, 1))
    first.focus()
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".ls-who").last).to_have_text("Person 1 will speak.")
    second.click()  # in the same shot: in the place of the first
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".ls-people button[aria-pressed=true]")).to_have_count(1)
    (left, right), frame = (box.bounding_box() for box in (first, second)), page.locator(".ls-people img").bounding_box()
    assert frame["x"] < left["x"] + left["width"] / 2 < frame["x"] + frame["width"] / 2 < right["x"] + right["width"] / 2
    page.click("#go")
    expect(page.locator(".ls-report h3")).to_have_text("All 8 frames synced.")
    page.context.close()
    settle(app)


def check_player(page: Page) -> None:
    """Both videos play, in step, by the keyboard too."""
    times = "[...document.querySelectorAll('#outcome video')].map(video => video.currentTime)"
    page.wait_for_function("[...document.querySelectorAll('#outcome video')].every(video => video.readyState >= 2)")
    page.locator("[data-play]").press("Enter")
    page.wait_for_function("document.querySelector('#outcome video[data-after]').ended")
    page.locator("[data-seek]").fill("500")
    page.wait_for_function("[...document.querySelectorAll('#outcome video')].every(video => !video.seeking && video.currentTime < 0.7)")
    before, after = page.evaluate(times)
    assert after == pytest.approx(0.48, abs=0.03)
    assert before == pytest.approx(after, abs=0.1)
    assert page.locator(".ls-strip i").count() == 1
    expect(page.locator("[data-time]")).to_have_text("0.5 / 1.0 s")
    check_compare(page, times)


def check_compare(page: Page, times: str) -> None:
    """A line to drag, an enlarged mouth, single frames, the original's sound, and from the end to the beginning."""
    page.keyboard.press(".")
    page.wait_for_function(f"Math.min(...{times}) > 0.51")
    assert page.evaluate(times) == pytest.approx([13.5 / 25] * 2, abs=0.005)  # the middle of the next frame, in both
    page.get_by_role("button", name="One frame back").click()
    page.wait_for_function(f"Math.max(...{times}) < 0.51")
    page.get_by_role("button", name="Wipe").click()
    line = page.get_by_label("How much of the left one is shown")
    line.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.querySelector('.ls-left-side')).clipPath") == "inset(0px 49% 0px 0px)"
    places = "[...document.querySelectorAll('#outcome figure')].map(figure => figure.getBoundingClientRect().x)"
    assert len(set(page.evaluate(places))) == 1, "one lies over the other"
    page.get_by_role("button", name="Zoom on the mouth").click()
    moved = page.evaluate("[...document.querySelectorAll('#outcome video')].map(video => video.style.transform)")
    assert moved[0] == moved[1]
    assert "scale(" in moved[0]
    page.get_by_role("button", name="Loop").click()
    assert page.evaluate("document.querySelector('#outcome video[data-after]').loop")
    assert page.locator("[data-look=sound]").count() == 0, "this video has no sound of its own"


@in_browser
def test_an_error_is_told_once_in_words_of_the_page(app: Served, browser: Browser) -> None:
    page = open_page(app, browser, PHONE)
    page.click("#go")
    expect(page.locator(".ls-failed")).to_contain_text("There is no video yet")
    give(page, clips()["nobody"], clips()["words"])
    page.click("#go")
    sentence = "No face to work on in nobody.mp4 (frames 0-9 (0.0-0.4 s): no face): take a video in which a face is clearly visible."
    expect(page.locator(".ls-failed")).to_contain_text(sentence)
    expect(page.get_by_test_id("toast-body").filter(has_text=sentence)).to_have_count(0)
    expect(page).to_have_title("Failed · LatentSync")
    expect(page.locator("#go")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "the page is wider than the phone"
    page.context.close()
    settle(app)


@in_browser
def test_any_format_is_shown_and_the_original_is_used(app: Served, browser: Browser) -> None:
    page = open_page(app, browser, PHONE, "dark")
    page.locator("input:has(+ #any-video)").set_input_files(clips()["photo"])
    page.locator("#video video").wait_for(state="attached")
    page.locator("input:has(+ #any-sound)").set_input_files(clips()["foreign"])
    page.locator("#audio .timestamps, #audio #waveform").first.wait_for(state="attached")
    page.click("#go")
    expect(page.locator(".ls-report h3")).to_have_text("All 8 frames synced.")
    expect(page.locator("#outcome .ls-small")).to_contain_text("768×512")  # the copy that the page shows is smaller
    page.context.close()
    settle(app)


@in_browser
def test_a_job_survives_a_cut_and_a_reload(app: Served, browser: Browser) -> None:
    page, asked = open_page(app, browser), []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    give(page, clips()["talk"], clips()["words"])
    assert page.get_by_label("Share").count() == 0
    page.click("#advanced button")
    start(page, steps=60)
    page.locator("[data-stage=generate]").wait_for()
    address, loads = page.url, page.evaluate("performance.timeOrigin")
    assert "?job=" in address
    page.context.set_offline(True)
    expect(page.locator(".ls-cut")).to_be_visible()
    time.sleep(3)
    page.context.set_offline(False)
    expect(page.locator(".ls-cut")).to_be_hidden()
    assert page.evaluate("performance.timeOrigin") == loads, "the page was not loaded again"
    before = int(page.get_by_role("progressbar", name="The whole job").get_attribute("aria-valuenow"))
    page.reload()
    assert asked == ["beforeunload"]
    assert page.url == address
    expect(page.locator("#stop")).to_be_visible()
    assert int(page.get_by_role("progressbar", name="The whole job").get_attribute("aria-valuenow")) >= before
    expect(page.locator(".ls-preview")).to_be_visible()
    assert re.fullmatch(r"\d+ % · LatentSync", page.title())
    expect(page.locator(".ls-report h3")).to_have_text("All 24 frames synced.")
    expect(page).to_have_title("✓ Done · LatentSync")
    page.locator("#video video").wait_for(state="attached")  # the inputs came back, too
    page.reload()
    expect(page.locator(".ls-report h3")).to_have_text("All 24 frames synced.")
    assert len(asked) == 1, "nobody asks when the job is done"
    page.context.close()
    settle(app)


def test_a_port_that_is_taken_is_refused_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ.get("GRADIO_TEMP_DIR", ""))  # it is set back afterwards
    models = tiny_models()
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen at this machine, port {port}: another"), ui.serving(models, port=port):
            pass
    assert models.loads == 0


@in_browser
def test_two_sessions_wait_cancel_and_end_right(app: Served, browser: Browser) -> None:
    anna, ben = open_page(app, browser, scheme="dark"), open_page(app, browser)
    for page in (anna, ben):
        give(page, clips()["talk"], clips()["short"])
    anna.click("#advanced button")
    start(anna, steps=100)
    anna.locator("[data-stage=generate]").wait_for()
    ben.click("#go")
    expect(ben.locator("[data-stage=waiting]")).to_contain_text("Place 2 in line")
    anna.click("#stop")
    expect(anna.locator(".ls-stopped")).to_contain_text("Nothing was made.")
    expect(ben.locator(".ls-report h3")).to_have_text("All 8 frames synced.")
    assert health(app) == {"status": "ok", "model": "own", "loads": 1, "running": 0, "waiting": 0}
    address = ben.locator(".ls-download").get_attribute("href")
    assert address not in anna.content()
    start(anna, steps=100)
    anna.locator("[data-stage=generate]").wait_for()
    anna.context.close()  # its job goes on for a while
    # the player may have cached a part of the file, which would answer 206
    fetched = "address => fetch(address, {cache: 'no-store'}).then(answer => answer.status)"
    assert ben.evaluate(fetched, address) == 200
    ben.context.close()
    settle(app)


@in_browser
def test_results_are_kept_compared_used_downloaded_and_deleted(app: Served, browser: Browser, tmp_path: Path) -> None:
    page = open_page(app, browser)
    page.on("dialog", lambda dialog: dialog.accept())
    give(page, clips()["talk"], clips()["short"])
    page.click("#advanced button")
    for seed in ("7", "8"):
        page.locator("#seed input").fill(seed)
        page.locator("#seed input").blur()
        page.click("#go")
        expect(page.locator("#outcome .ls-small")).to_contain_text(f"seed {seed}")
    items = page.locator(".ls-gallery li")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text("talk_new_words.mp4")
    expect(items.first).to_contain_text(re.compile(r"Standard · seed 8 · \d+:\d\d"))
    page.reload()
    expect(items).to_have_count(2)
    expect(items.first.locator("img")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    for box in items.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare two").click()
    expect(page.locator("#outcome figcaption")).to_have_text(["Standard · seed 7", "Standard · seed 8"])
    page.wait_for_function("[...document.querySelectorAll('#outcome video')].every(video => video.readyState >= 2)")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download 2").click()
    download.value.save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert [Path(name).name for name in names] == [f"talk_new_words.{kind}" for kind in ("report.json", "settings.json", "mp4")] * 2
        assert [json.loads(archive.read(name))["seed"] for name in names if "settings" in name] == [8, 7]
    items.last.get_by_role("button", name="Show").click()
    expect(page.locator("#outcome .ls-small")).to_contain_text("seed 7")
    items.last.get_by_role("button", name="Use as video").click()
    expect(page.locator("#video video")).to_have_attribute("src", re.compile("talk_new_words"))
    items.last.get_by_role("button", name="Delete").click()
    expect(items).to_have_count(1)
    expect(page.locator(".ls-empty")).to_be_visible()
    other = open_page(app, browser)
    expect(other.locator(".ls-empty")).to_be_visible()
    assert other.locator(".ls-gallery li").count() == 0, "another browser's results"
    for tab in (other, page):
        tab.context.close()
    settle(app)


def start(page: Page, steps: int) -> None:
    page.locator("#inference_steps input[type=number]").fill(str(steps))
    page.locator("#inference_steps input[type=number]").blur()
    page.click("#go")


def snippets() -> list[str]:
    """The examples of calling the API, wherever the documents give one."""
    blocks = [re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S) for name in ("README.md", "docs/app.md")]
    return sorted({block for found in blocks for block in found if "gradio_client" in block})


@pytest.mark.parametrize("snippet", snippets())
def test_the_documented_call_works_from_another_process(app: Served, tmp_path: Path, snippet: str) -> None:
    for name in ("talk.mp4", "words.wav"):
        (tmp_path / name).write_bytes((clips()["talk"].parent / name).read_bytes())
    program = snippet.replace("http://127.0.0.1:7860", app.address)
    elsewhere = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "downloads")}  # not where the app of this process keeps its files
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=elsewhere, capture_output=True, text=True, timeout=PATIENCE / 1000
    )
    assert done.returncode == 0, done.stderr
    assert "All 24 frames synced." in done.stdout
    assert [len(list(VideoReader(path).frames())) for path in tmp_path.glob("*.mp4")].count(24) == 1
    settle(app)


def test_the_api_says_what_is_wrong_and_serves_nothing_else(app: Served) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(app.address, verbose=False)
    sound = handle_file(clips()["words"])
    with pytest.raises(AppError, match=r"words.wav holds only sound: a video with a picture is needed here"):
        client.predict(video=sound, audio=sound, api_name="/lipsync")
    with pytest.raises(AppError, match="length is 'short'"):
        client.predict(video=handle_file(clips()["talk"]), audio=sound, length="short", api_name="/lipsync")
    with pytest.raises(Exception, match="exceeds the maximum file size of 5242880 bytes"):
        client.predict(video=handle_file(clips()["large"]), audio=sound, api_name="/lipsync")
    with urlopen(f"{app.address}/favicon.ico") as answer:
        assert answer.read() == (ROOT / "latentsync" / "app" / "static" / "mark.svg").read_bytes()
    for path in (ROOT / "README.md", clips()["talk"], Path("/etc/passwd")):
        with pytest.raises(HTTPError, match="403"):
            urlopen(f"{app.address}/gradio_api/file={quote(str(path))}")
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/lipsync"]
    client.close()
    settle(app)
