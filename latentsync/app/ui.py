"""The page: its theme, layout and events, the API's endpoint, and the server of both."""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from functools import cache
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.themes import Base, Color, colors, sizes
from jinja2 import Environment, FileSystemLoader
from starlette.middleware import Middleware

from latentsync.app.forecast import Forecast
from latentsync.app.gallery import LISTED, gallery_item, label_of, report_of
from latentsync.app.handlers import NOBODY, Handlers, Sessions, UploadLimit, address_of, owner_of, toast
from latentsync.app.jobs import MAX_PIXELS, JobProgress, JobQueue, JobStage, QueuedJob, is_this_machine
from latentsync.app.messages import (
    SYNCED,
    describe_place,
    describe_progress,
    describe_result,
    describe_seconds,
    describe_stop,
    describe_work,
    mouth_places,
    output_runs,
    title_of,
)
from latentsync.app.models import ModelCache
from latentsync.app.people import PeopleFinder, data_address
from latentsync.app.weights_download import WeightsDownload, weights_places
from latentsync.errors import InputError, LatentSyncError
from latentsync.faces.detector import shrink
from latentsync.media.files import temporary_folder
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader
from latentsync.pipelines.build import ROOT
from latentsync.pipelines.options import OPTION_TYPES, QUALITIES, STRONGEST, LipsyncOptions
from latentsync.pipelines.result import LipsyncResult

STATIC = Path(__file__).with_name("static")
KEPT_UPLOADS = 4  # of the largest size, that a session may keep, and that an address may send and not use
IDLE_SECONDS = 15.0  # after which a page without a job says again that it is there
DOWNLOAD_POLL_SECONDS = 1.0
EXAMPLE_SIDE = 240  # pixels of the longer side of an example's picture
PREVIEW_SIDE = 480  # pixels of the longer side of the newest frame
STAGES = {JobStage.ANALYSE: "Follow", JobStage.GENERATE: "Make", JobStage.COMPARE: "Compare"}
MODEL_DEFAULT = -1  # what the API's callers give for numbers that the model or the codec decides
CONTROLS: dict[str, dict[str, Any]] = {  # the options of a job that page and API offer: the page's label, and more settings of its input
    "face": {
        "label": "Who shall speak where nobody is chosen above",
        "choices": [("The largest face", "largest"), ("The leftmost face", "left"), ("The rightmost face", "right")],
        "info": None,
    },
    "quality": {
        "label": "Quality",
        "choices": [(name.title(), name) for name in QUALITIES],
        "info": "Draft is a quick look. Standard looks like Fine, which takes several times as long.",
    },
    "inference_steps": {"label": "Steps", "minimum": 1, "maximum": 100, "step": 1},
    "guidance_scale": {"label": "Guidance", "minimum": 1, "maximum": 5, "step": 0.1},
    "strength": {"label": "Mouth strength", "minimum": 0, "maximum": STRONGEST, "step": 0.1},
    "silence": {"label": "The mouth in pauses", "choices": [("Follows the sound", "keep"), ("Is shut", "close")]},
    "seed": {"label": "Seed", "minimum": 0},
    "length": {"label": "How long is the result?", "choices": [("As long as the sound", "audio"), ("As long as the video", "video")]},
    "keep_fps": {"label": "Keep the video's frame rate"},
    "mark": {"label": "Write “AI-generated” into a corner of the picture", "info": None},
    "crf": {"label": "Compression (crf)", "minimum": 10, "maximum": 35, "step": 1, "value": 18},
}
PRESET_OPTIONS = ("inference_steps", "guidance_scale")  # what quality and model decide where nothing else is chosen
SHOW_OUTCOME = "() => document.getElementById('outcome').scrollIntoView({behavior: 'smooth', block: 'nearest'})"
QUIET_BUTTON: dict[str, Any] = {"size": "sm", "variant": "secondary", "elem_classes": "ls-quiet", "min_width": 120}
CLEAR_PEOPLE = f"() => ({json.dumps(NOBODY)})"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def make_theme() -> Base:
    accent = Color(
        *("#f3f2ff", "#e7e5ff", "#d2ceff", "#b3acff", "#9184fb", "#7560ef", "#6246dc", "#5136ba", "#432f97", "#392b79", "#221950"),
        name="iris",
    )
    theme = Base(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue=colors.stone,
        radius_size=sizes.radius_lg,
        text_size=sizes.text_md,
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "DejaVu Sans", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"),
    )
    return theme.set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )


def read_static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@cache
def _templates() -> Any:
    return Environment(loader=FileSystemLoader(STATIC), autoescape=True).get_template("views.html").module


def view(name: str, *values: object) -> str:
    """A piece of HTML: a macro of `views.html`, which escapes the values that are no such pieces themselves."""
    return getattr(_templates(), name)(*values)


def progress_view(progress: JobProgress, is_loaded: bool = False) -> str:
    """How far a job is: stage, bar, numbers."""
    percent = None if progress.share is None else int(100 * progress.share)
    reached = list(STAGES).index(progress.stage) if progress.stage in STAGES else -1
    title = title_of(progress, is_loaded)
    return view("progress", progress.stage.value, title, describe_progress(progress, is_loaded), percent, list(STAGES.values()), reached)


def strip_of(result: LipsyncResult) -> tuple[list[tuple[float, str, str]], str]:
    """The strip of time: (share in percent, class, what happened) of each run of frames, and the percentage that has a new mouth."""
    runs = []
    for run in output_runs(result):
        kind, what = ("ls-synced", "new mouth") if run.reason == SYNCED else ("ls-left", f"left as it was ({run.reason})")
        runs.append((100 * (run.stop - run.start) / result.frames, kind, f"{describe_place(run, result.fps)}: {what}"))
    return runs, f"{100 * result.generated / result.frames:.0f}"


def result_view(job: QueuedJob, title: str) -> str:
    """The result: player, report, download; `title` is the model's."""
    result, address = job.result, address_of_file(job.result.output_path)
    player = player_view(job, job.comparison_video, ("Original", "New words"))
    return view("result", player, job.id, address, result.output_path.name, describe_result(result), describe_work(result, title))


def address_of_file(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def player_view(job: QueuedJob, beside: Path, names: tuple[str, str]) -> str:
    """A job's result on the right, another video `beside` it on the left, and what they are called."""
    result, tall = job.result, job.result.height > job.result.width
    faces, strip = json.dumps(mouth_places(result)), view("strip", *strip_of(result))
    left, right = address_of_file(beside), address_of_file(result.output_path)
    return view("player", left, right, names, tall, f"{result.fps:g}", faces, probe(beside).has_audio, strip)


def option_input(name: str, **settings: Any) -> gr.components.Component:
    """The page's input of an option: of the option's type, with the value and explanation of `LipsyncOptions` and what CONTROLS adds."""
    about = LipsyncOptions.__dataclass_fields__[name].metadata
    settings = {"value": getattr(LipsyncOptions, name), "info": about["help"], "elem_id": name, **CONTROLS[name], **settings}
    kind = OPTION_TYPES[name]
    if kind is bool:
        return gr.Checkbox(**settings)
    if kind is str:
        choices = settings.pop("choices", about["choices"])
        return gr.Radio(choices, **settings) if choices else gr.Textbox(**settings)
    make = gr.Slider if "maximum" in settings else gr.Number
    return make(**settings, precision=0 if kind is int else None)


def api_input(name: str) -> gr.components.Component:
    kind, default = OPTION_TYPES[name], getattr(LipsyncOptions, name)
    if kind is bool:
        return gr.Checkbox(default, label=name)
    if kind is str:
        return gr.Textbox(default or "", label=name)
    return gr.Number(MODEL_DEFAULT if default is None else default, label=name, precision=0 if kind is int else None)


def html(value: Any, **settings: Any) -> gr.HTML:
    """A piece of our own, without the margins of Gradio's texts."""
    return gr.HTML(value, apply_default_css=False, **settings)


class Page:
    """Builds the page and calls the handlers with what stands on it; `examples` are pairs (video, audio) to try out with."""

    def __init__(self, handlers: Handlers, examples: Sequence[tuple[Path, Path]], download: WeightsDownload) -> None:
        self._download = download
        self._handlers, self._cache, self._examples = handlers, handlers.job_queue.model_cache, examples

    def build(self) -> gr.Blocks:
        with gr.Blocks(title="LatentSync", analytics_enabled=False) as page:
            html(view("header"))
            with gr.Row(elem_classes="ls-main", equal_height=False):
                with gr.Column(scale=5, min_width=300, elem_classes="ls-form"):
                    video, audio, people, looks = self._inputs()
                    with gr.Group(elem_classes="ls-card"):
                        html(view("heading", 3, "How good, how fast", "The rest has sensible defaults."))
                        names = [(choice.title, key) for key, choice in self._cache.choices.items()]
                        default = self._cache.default.key
                        model = gr.Dropdown(
                            names, value=default, label="Model", elem_id="model", interactive=len(names) > 1, filterable=False
                        )
                        about = html(self._describe(default), elem_id="about-model")
                        options = self._options(model)
                        if not all(place.is_there for place in weights_places()):
                            self._published()
                    html(view("consent"))
                    with gr.Row(elem_classes="ls-actions"):
                        forecast = html(self._show_forecast(Forecast()), elem_id="forecast")
                        go = gr.Button("Make the video", variant="primary", size="lg", elem_id="go")
                        gr.Button("Stop", variant="stop", size="lg", elem_id="stop")
                with gr.Column(scale=6, min_width=300, elem_classes="ls-outcome"):
                    outcome, gallery = self._outcome()
            gallery.select(self._use_result, None, [video], **PRIVATE)
            go.click(None, js=SHOW_OUTCOME, **PRIVATE)
            go.click(self._start, [video, audio, people, model], [outcome], inputs_kwargs=options, **PRIVATE)
            gr.on([model.input, page.load, outcome.select], self._describe, [model], [about], **PRIVATE)  # select: another one was loaded
            self._foresee(looks, [video, audio, model], options, [forecast, options["quality"]])
            page.load(self._enter, None, [outcome, video, audio], **PRIVATE)
            page.load(None, js=read_static("page.js"), **PRIVATE)
            page.unload(self._close)
            self._endpoint()
        page.queue(default_concurrency_limit=None)
        return page

    def _outcome(self) -> tuple[gr.HTML, gr.HTML]:
        """The job that the page watches, with its player, and the list of all results."""

        def watch_job(question: dict[str, Any]) -> dict[str, Any]:  # Gradio marks the functions that a page may call, not methods
            return self.watch(question)

        def stop_job(name: str) -> None:
            self.stop(name)

        def compare_jobs(names: list[str]) -> str:
            return self.compare(names)

        def remove_job(name: str) -> None:
            self._handlers.remove(str(name))

        outcome = html(
            {},
            html_template=f'<div class="ls-view">{view("empty")}</div>',
            js_on_load=read_static("watch.js") + read_static("player.js"),
            server_functions=[watch_job, stop_job],
            elem_id="outcome",
            elem_classes="ls-card",
        )
        gallery = html(
            {},
            html_template='<div class="ls-gallery"></div>',
            js_on_load=read_static("gallery.js"),
            server_functions=[compare_jobs, remove_job],
            elem_id="gallery",
            elem_classes="ls-card",
        )
        return outcome, gallery

    def _foresee(
        self, looks: Sequence[Any], files: list[Any], options: dict[str, gr.components.Component], shown: list[gr.components.Component]
    ) -> None:
        """Say anew what will happen after each of `looks` at a file, and when an option changes on which it depends."""

        def foresee(video: str | None, audio: str | None, model: str, **given: Any) -> tuple[str, Any]:
            forecast = self._handlers.forecast(video, audio, model, given)
            return self._show_forecast(forecast), gr.Radio(**self._presets(model, forecast))

        deciding = {name: options[name] for name in ("quality", "length", "keep_fps", *PRESET_OPTIONS)}
        settings = {"fn": foresee, "inputs": files, "outputs": shown, "inputs_kwargs": deciding, **PRIVATE}
        for look in looks:
            look.then(**settings)
        gr.on([files[2].input, *(part.change for part in deciding.values())], **settings, trigger_mode="always_last")

    def _show_forecast(self, forecast: Forecast) -> str:
        return view("forecast", forecast.line(), forecast.warnings())

    def _presets(self, model: str, forecast: Forecast) -> dict[str, Any]:
        """Settings of the input: the presets with their times, closed where they make no difference."""
        is_one_step = self._cache.choice(model).sampling.inference_steps == 1
        times = {name: forecast.by_quality.get(name) for name in QUALITIES}
        names = {
            name: name.title() + ("" if seconds is None or is_one_step else f" ({describe_seconds(seconds)})")
            for name, seconds in times.items()
        }
        info = "This model takes one step, whichever preset is chosen." if is_one_step else CONTROLS["quality"]["info"]
        return {"choices": [(title, name) for name, title in names.items()], "interactive": not is_one_step, "info": info}

    def _inputs(self) -> tuple[gr.Video, gr.Audio, gr.HTML, list[Any]]:
        """The cards of the video, with the people who are found in it, and of the sound; and the events that look at them."""
        examples = self._example_row()
        with gr.Group(elem_classes="ls-card"):
            html(view("heading", 1, "A video of somebody talking", "The face should be clearly visible; other scenes stay as they are."))
            video = gr.Video(label="Video", sources=["upload", "webcam"], height=250, elem_id="video", show_label=False)
            any_video = gr.UploadButton("Use a photo", file_types=["video", "image"], elem_id="any-video", **QUIET_BUTTON)
            people = html(
                NOBODY,
                html_template='<p class="ls-who">Who shall speak? Nobody chosen: the largest face.</p>'
                '<div class="ls-people" role="group" aria-label="Who shall speak"></div>',
                js_on_load=read_static("people.js"),
                elem_id="people",
                visible="hidden",
            )
        with gr.Group(elem_classes="ls-card"):
            html(view("heading", 2, "The new words", "A recording, or speak now. It is used as it is."))
            sound = {"sources": ["upload", "microphone"], "type": "filepath", "buttons": []}  # one of Gradio's buttons shares with a hub
            audio = gr.Audio(label="Sound", elem_id="audio", show_label=False, **sound)
            any_sound = gr.UploadButton("Use the sound of a video", file_types=["video", "audio"], elem_id="any-sound", **QUIET_BUTTON)
        video.change(None, None, [people], js=CLEAR_PEOPLE, **PRIVATE)  # at once: those of the last video must not stay in sight
        looks = [
            video.change(self._handlers.people, [video], [people], trigger_mode="multiple", **PRIVATE),
            audio.change(self._claim, [audio], None, **PRIVATE),
        ]
        for button, example in zip(examples, self._examples, strict=True):
            button.click(self._handlers.example(*example), outputs=[video, audio], **PRIVATE)
        for shown, given, show in ((video, any_video, self._handlers.show_video), (audio, any_sound, self._handlers.show_sound)):
            for part in (shown, given):
                part.upload(show, [part], [shown], **PRIVATE)
        return video, audio, people, looks

    def _example_row(self) -> list[gr.Button]:
        """The examples as pictures to press, the first frame of each."""
        if not self._examples:
            return []
        pictures = []
        for video, _ in self._examples:
            with closing(VideoReader(video, None).frames(0, 1)) as frames:
                pictures.append(data_address(shrink(next(iter(frames)), EXAMPLE_SIDE)))
        html(view("examples", pictures))
        with gr.Row(elem_classes="ls-examples"):
            return [gr.Button(f"Example {number}", elem_id=f"example-{number}") for number in range(1, len(pictures) + 1)]

    def _options(self, model: gr.Dropdown) -> dict[str, gr.components.Component]:
        """The inputs of CONTROLS: how much work to do, and, folded, what few people need. Quality and model set steps and guidance."""
        inputs = {"quality": option_input("quality", **self._presets(self._cache.default.key, Forecast()))}
        defaults = dict(zip(PRESET_OPTIONS, self._settings(LipsyncOptions.quality, self._cache.default.key), strict=True))
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            for name in (name for name in CONTROLS if name not in inputs):
                with gr.Row(elem_classes="ls-seed") if name == "seed" else nullcontext():
                    inputs[name] = option_input(name, **({"value": defaults[name]} if name in defaults else {}))
                    if name == "seed":
                        dice = gr.Button("Roll the dice", size="sm", elem_id="dice", min_width=120)
        dice.click(lambda: secrets.randbelow(1_000_000), None, [inputs["seed"]], **PRIVATE)
        for chooser in (inputs["quality"], model):
            chooser.input(self._settings, [inputs["quality"], model], [inputs[name] for name in PRESET_OPTIONS], **PRIVATE)
        return inputs

    def _published(self) -> None:
        """How to get the published weights: which file goes where, and a download for who sits at the machine that serves the page."""

        def fetch(request: gr.Request) -> Iterator[str]:
            if not is_this_machine(address_of(request)):
                yield view("weights", weights_places(), "Only who sits at the machine that runs this page can download them to it.")
                return
            self._download.start()
            while self._download.is_running:
                yield view("weights", weights_places(), self._download.line())
                sleep(DOWNLOAD_POLL_SECONDS)
            yield view("weights", weights_places(), self._download.line())

        with gr.Accordion("Better mouths: the published weights", open=False, elem_id="weights"):
            shown = html(view("weights", weights_places(), ""))
            gr.Button("Download what is missing", elem_id="download-weights", **QUIET_BUTTON).click(fetch, None, [shown], **PRIVATE)

    def _endpoint(self) -> None:
        """The API's /lipsync, which programs call; its inputs and outputs stand on no page."""
        with gr.Row(visible=False):
            files = [gr.File(label=label, type="filepath") for label in ("video", "audio")]
            options = {name: api_input(name) for name in CONTROLS}
            inputs = {"face": options.pop("face"), "model": gr.Textbox("", label="model"), **options}
            outputs = [gr.File(label="result"), gr.JSON(label="report")]
            button = gr.Button("call")
        about = {"api_name": "lipsync", "api_description": "Give the person in a video other words."}
        button.click(self._call, files, outputs, inputs_kwargs=inputs, **about)

    def _settings(self, quality: str, model: str) -> tuple[int, float]:
        options = LipsyncOptions(quality=quality).completed(self._cache.choice(model).sampling)
        return options.inference_steps, options.guidance_scale

    def _describe(self, model: str) -> str:
        return view("model", self._cache.loaded == model, self._cache.choice(model).note)

    def _claim(self, file: str | None, request: gr.Request) -> None:
        self._handlers.claim(file, owner_of(request))

    def _close(self, request: gr.Request) -> None:
        self._handlers.close(owner_of(request))

    def _start(
        self, request: gr.Request, video: str | None, audio: str | None, people: dict[str, list] | None, model: str, **options: Any
    ) -> dict[str, Any]:
        """The button: puts a job in line, which the page then watches, or says why not."""
        options["face"] = ";".join((people or NOBODY)["chosen"]) or options["face"]
        try:
            job = self._handlers.submit(video, audio, model, options, owner_of(request), address_of(request))
        except LatentSyncError as error:
            return self._watching(request) | {"notice": view("notice", "This did not work", error, "failed"), "time": monotonic()}
        return self._watching(request, job)

    def _enter(self, request: gr.Request) -> tuple[dict[str, Any], Any, Any]:
        """A page was opened, or loaded again: it watches the job of its address, and has the inputs of that."""
        owner, name = owner_of(request), request.query_params.get("job")
        job = self._handlers.job(name, page=owner)
        if job is None:
            gone = {"notice": self._end(None)[1]} if name else {}
            return self._watching(request) | gone, gr.skip(), gr.skip()
        files = [str(path) if path.is_file() else gr.skip() for path in (job.request.video, job.request.audio)]
        return self._watching(request, job), *files

    def _watching(self, request: gr.Request, job: QueuedJob | None = None) -> dict[str, Any]:
        """What the page's watch.js goes by."""
        idle_seconds = min(IDLE_SECONDS, self._handlers.sessions.keep_seconds / 4)
        return {"page": owner_of(request), "job": job and job.id, "idleSeconds": idle_seconds}

    def watch(self, question: dict[str, Any]) -> dict[str, Any]:
        """What watch.js asks again and again: how is the job `job`, of which it has shown `shown` frames? `page` is its session.

        Answers with HTML to show, the tab's title, whether that is the end, and a picture of the newest frame, if there is one.
        """
        name, answer = question.get("job"), {"loaded": self._cache.loaded, **self._listed(question)}
        job = self._handlers.job(name, page=str(question.get("page") or ""))
        if not name:
            return answer
        if job is None or job.stage.is_end:
            title, html = self._end(job)
            return answer | {"end": True, "title": title, "html": html}
        progress, frame = self._handlers.job_queue.progress(job), job.newest_frame
        is_loaded = self._cache.loaded == job.request.model
        title = title_of(progress, is_loaded) if progress.share is None else f"{int(100 * progress.share)} %"
        answer |= {"end": False, "title": title, "html": progress_view(progress, is_loaded)}
        if frame is not None and progress.done != question.get("shown"):
            answer |= {"shown": progress.done, "picture": data_address(shrink(frame, PREVIEW_SIDE))}
        return answer

    def _listed(self, question: dict[str, Any]) -> dict[str, Any]:
        """The list of the jobs that a page knows, where it is not the `version` that it shows already."""
        names = [str(name) for name in question.get("jobs") or []][:LISTED]
        jobs = {name: job for name in names if (job := self._handlers.job(name))}
        items = [gallery_item(job, self._handlers.job_queue.progress(job)) for job in jobs.values()]
        items.sort(key=lambda item: -inf if item.ended is None else -item.ended)
        unknown = [name for name in names if name not in jobs]
        html = view("gallery", items)
        version = hashlib.sha256(f"{html}{unknown}".encode()).hexdigest()
        if version == question.get("version"):
            return {}
        return {"list": html, "version": version, "unknown": unknown, "isBusy": not all(item.is_end for item in items)}

    def compare(self, names: list[str]) -> str:
        """Two results beside each other; nothing where one of them is gone."""
        jobs = self._handlers.results([str(name) for name in names][:2])
        if len(jobs) < 2:
            return ""
        left, right = sorted(jobs, key=lambda job: job.ended or 0)
        names = [label_of(job) for job in (left, right)]
        if names[0] == names[1]:
            names = [f"{name}, {place}" for name, place in zip(names, ("first", "second"), strict=True)]
        return view("comparison", player_view(right, left.result.output_path, (names[0], names[1])), names)

    def _use_result(self, request: gr.Request, event: gr.EventData) -> Any:
        """A result becomes the video: a copy, which stays when the result is removed."""
        jobs = self._handlers.results([str(event._data.get("job"))])
        if not jobs:
            return gr.skip()
        folder = self._handlers.sessions.fresh_folder("input")
        folder.mkdir(parents=True)
        copy = shutil.copy(jobs[0].result.output_path, folder)
        self._handlers.claim(copy, owner_of(request))
        return copy

    def _end(self, job: QueuedJob | None) -> tuple[str, str]:
        """The tab's title and the page's view of a job that has ended, or that is not known any more."""
        if job is None:
            return "Gone", view("notice", "This job is gone", self._gone(), "stopped")
        if job.stage is JobStage.CANCELLED:
            return "Stopped", view("notice", "Stopped", describe_stop(sum(self._handlers.job_queue.counts())), "stopped")
        if job.stage is JobStage.FAILED:
            return "Failed", view("notice", "This did not work", self._handlers.failure(job), "failed")
        return "✓ Done", result_view(job, self._cache.choice(job.request.model).title)

    def stop(self, name: str) -> None:
        """The button; who knows a job's id may stop it."""
        if job := self._handlers.job(str(name)):
            self._handlers.job_queue.cancel(job)

    def _gone(self) -> str:
        kept = describe_seconds(self._handlers.sessions.keep_seconds)
        return f"A job is kept for {kept} after its page was closed, and not when the app is started again. Make the video once more."

    async def _call(
        self, request: gr.Request, video: str | None, audio: str | None, model: str, **options: Any
    ) -> AsyncIterator[tuple[str | None, dict[str, Any]]]:
        """The API: (None, progress) again and again, then (the result's file, its report). Raises gr.Error with the reason."""
        for name, value in options.items():
            if value == MODEL_DEFAULT and getattr(LipsyncOptions, name) is None:
                options[name] = None
        try:
            job = await asyncio.to_thread(self._handlers.submit, video, audio, model, options, owner_of(request), address_of(request))
        except LatentSyncError as error:
            self._handlers.sessions.release(owner_of(request), [Path(path) for path in (video, audio) if path], self._handlers.needed())
            raise toast(error) from None
        async for progress in self._handlers.follow(job):
            numbers = {"frames": progress.done, "total": progress.total, "ahead": progress.ahead}
            yield None, {"stage": progress.stage.value, **numbers, "share": progress.share, "seconds_left": progress.seconds_left}
        if job.result is None or job.stage is not JobStage.DONE:
            raise toast(self._handlers.failure(job) or "The job was stopped.")
        yield str(job.result.output_path), report_of(job)


async def tidy_regularly(handlers: Handlers) -> None:
    """Tidy up until the server ends."""
    while True:
        await asyncio.sleep(min(60.0, handlers.sessions.keep_seconds / 4))
        await asyncio.to_thread(handlers.tidy)


@contextmanager
def serving(
    model_cache: ModelCache,
    *,
    max_minutes: float = 5.0,
    max_megabytes: int = 500,
    max_pixels: int = MAX_PIXELS,
    concurrency: int = 1,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: Sequence[tuple[str, str]] = (),
    keep_minutes: float = 30.0,
) -> Iterator[gr.Blocks]:
    """Serve the app for the length of a block; yields the running page. Arguments are those of gradio_app.py.

    All files, uploads too, lie in a temporary folder, which goes with it. Where `host` and `port` are None, Gradio chooses:
    GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, else 127.0.0.1 and the first free port from 7860. Raises InputError: they cannot be had.
    """
    preload = threading.Thread(target=model_cache.preload, name="preload")
    with temporary_folder("latentsync-app-") as folder, JobQueue(model_cache, concurrency) as job_queue, WeightsDownload() as download:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # where Gradio keeps files; it reads the variable again and again
        sessions = Sessions(folder, keep_minutes * 60, KEPT_UPLOADS * max_megabytes * 2**20)
        handlers = Handlers(job_queue, sessions, PeopleFinder(), max_minutes, max_pixels)
        videos = sorted((ROOT / "assets").glob("demo*_video.mp4"))
        pairs = [(video, video.with_name(video.name.replace("_video.mp4", "_audio.wav"))) for video in videos]
        page = Page(handlers, [pair for pair in pairs if pair[1].is_file()], download).build()

        @asynccontextmanager
        async def lifespan(app: gr.routes.App) -> AsyncIterator[None]:  # from before the first request is answered
            app.add_api_route("/health", handlers.health)
            app.add_api_route("/results.zip", handlers.download)
            tidying = asyncio.create_task(tidy_regularly(handlers))
            yield
            tidying.cancel()

        settings = {"server_name": host, "server_port": port, "share": share, "auth": list(auth) or None}
        settings["auth_message"] = view("login", read_static("style.css"))
        limit = Middleware(UploadLimit, sessions=sessions, max_bytes=KEPT_UPLOADS * max_megabytes * 2**20)
        app_kwargs = {"lifespan": lifespan, "middleware": [limit]}
        limits = {"max_file_size": f"{max_megabytes}mb"}
        style = {"theme": make_theme(), "css": read_static("style.css"), "favicon_path": STATIC / "mark.svg", "footer_links": ["api"]}
        unused = {"quiet": True, "run_history": False, "enable_monitoring": False, "ssr_mode": False, "pwa": False}
        try:
            try:
                page.launch(**settings, **limits, **style, **unused, prevent_thread_lock=True, app_kwargs=app_kwargs)
            except OSError:
                where = f"at {host or 'this machine'}, port {port or '7860 and up'}"
                cure = "another program does, or the address is not this machine's; give another --port, or none for the first free one."
                raise InputError(f"The app cannot listen {where}: {cure}") from None
            preload.start()  # not before: a program that ends while a model is loaded does not end well
            yield page
        finally:
            page.close(verbose=False)
            if preload.is_alive():
                preload.join()
