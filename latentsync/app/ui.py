"""The page: its layout, its theme, its pieces of HTML."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.themes import Base, Color, sizes

from latentsync.app.handlers import DRAFT, FINE, NOBODY, STANDARD, UNSET, Example, FormValues, Handlers, fresh_seed, settings_of, toast
from latentsync.app.jobs import JobProgress, JobStage, QueuedJob
from latentsync.app.messages import TITLES, Stretch, describe_place, describe_progress, describe_result, describe_work, stretches
from latentsync.app.models import ModelChoice
from latentsync.errors import LatentSyncError
from latentsync.pipelines.options import LipsyncOptions
from latentsync.pipelines.result import LipsyncResult

ACCENT = Color(
    *("#f3f2ff", "#e7e5ff", "#d2ceff", "#b3acff", "#9184fb", "#7560ef", "#6246dc", "#5136ba", "#432f97", "#392b79", "#221950"),
    name="iris",
)
GREY = Color(
    *("#fafaf9", "#f5f4f2", "#e8e6e3", "#d7d4d0", "#a5a19c", "#77736e", "#575450", "#42403d", "#292826", "#1b1a19", "#111110"),
    name="stone",
)
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def make_theme() -> Base:
    """The theme of the page; `style.css` does the rest."""
    theme = Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=GREY,
        radius_size=sizes.radius_lg,
        text_size=sizes.text_md,
        font=FONT,
        font_mono=MONO,
    )
    return theme.set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        block_border_width="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="white",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
    )


MARK = (
    '<svg class="ls-mark" viewBox="0 0 40 40" aria-hidden="true"><rect width="40" height="40" rx="11"/>'
    '<path d="M8 21c4-6 8-7 12-5 4-2 8-1 12 5-4 7-8 9-12 9s-8-2-12-9Z"/><path class="ls-mark-line" d="M9 21h5l2-3 3 6 3-6 2 3h7"/></svg>'
)
PLAY = '<svg viewBox="0 0 20 20" aria-hidden="true"><path class="ls-if-paused" d="M6 3.5v13l11-6.5z"/><path class="ls-if-playing" d="M5 3.5h3.5v13H5zM11.5 3.5H15v13h-3.5z"/></svg>'  # noqa: E501 - one drawing
SPEAKER = '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M3 7.5v5h3.2L11 16.5v-13L6.2 7.5z"/><path class="ls-if-loud" d="M13.3 6.2a5 5 0 0 1 0 7.6l1 1.2a6.6 6.6 0 0 0 0-10z"/></svg>'  # noqa: E501 - one drawing
STEPS = (("analyse", JobStage.ANALYSE, "Follow"), ("generate", JobStage.GENERATE, "Make"), ("compare", JobStage.COMPARE, "Compare"))


def file_address(path: Path) -> str:
    """The address of a file of this app, relative to the page."""
    return "gradio_api/file=" + quote(str(path))


def header_view() -> str:
    """What this is, in one line."""
    return (
        f'<header class="ls-header">{MARK}<div><h1>LatentSync</h1>'
        "<p>New words for a talking face: a video and a recording in, the same video out, saying those words.</p></div></header>"
    )


def heading_view(number: int, title: str, hint: str) -> str:
    """The heading of one step of the form."""
    return f'<div class="ls-heading"><span aria-hidden="true">{number}</span><div><h2>{escape(title)}</h2><p>{escape(hint)}</p></div></div>'


def model_view(choice: ModelChoice, loaded: str | None) -> str:
    """What to expect of a model, and whether it is ready."""
    ready = loaded == choice.key
    state = "Loaded and ready." if ready else "Not loaded yet: the first job with it takes a little longer."
    return f'<p class="ls-model{" ls-ready" if ready else ""}"><b>{state}</b> {escape(choice.note)}</p>'


def empty_view() -> str:
    """Where the result will be, before there is one."""
    return (
        f'<div class="ls-empty">{MARK}<h3>Your video appears here</h3>'
        "<p>Original and result play side by side, in step. Everything outside the face stays as it was, and the sound is your own "
        "recording.</p></div>"
    )


def progress_view(progress: JobProgress) -> str:
    """How far a job is: stage, bar, numbers."""
    percent = None if progress.share is None else round(100 * progress.share)
    order = [stage for _, stage, _ in STEPS]
    reached = order.index(progress.stage) if progress.stage in order else -1
    marks = "".join(
        f'<li class="{"ls-now" if k == reached else "ls-past" if k < reached else ""}">{name}</li>' for k, (_, _, name) in enumerate(STEPS)
    )
    now = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}"' if percent is not None else ""
    width = f'style="width:{percent}%"' if percent is not None else 'class="ls-unknown"'
    title, line = escape(TITLES[progress.stage]), escape(describe_progress(progress))
    return (
        f'<div class="ls-progress" data-stage="{progress.stage.value}"><ol>{marks}</ol>'
        f"<h3>{title}{'' if percent is None else f'<span>{percent} %</span>'}</h3>"
        f'<div class="ls-bar" role="progressbar" aria-label="{title}" {now}><div {width}></div></div>'
        f"<p>{line or '&nbsp;'}</p></div>"
    )


def notice_view(title: str, sentence: str, kind: str) -> str:
    """An end without a result: `kind` is "failed" or "stopped"."""
    return f'<div class="ls-notice ls-{kind}" role="alert"><h3>{escape(title)}</h3><p>{escape(sentence)}</p></div>'


def result_view(ticket: QueuedJob, title: str) -> str:
    """The result: player, strip of time, report, download; `title` is the model's."""
    result, before = ticket.result, ticket.before
    assert result is not None and before is not None
    runs = stretches(result)
    first, *others = describe_result(result)
    report = "".join(f"<li>{escape(sentence)}</li>" for sentence in others)
    address = file_address(result.output_path)
    return (
        f'<section class="ls-result" aria-label="Result"><div class="ls-pair{" ls-tall" if result.height > result.width else ""}">'
        f'<figure><video data-before muted playsinline preload="auto" src="{file_address(before)}" aria-label="The original"></video>'
        "<figcaption>Original</figcaption></figure>"
        f'<figure><video data-after playsinline preload="auto" src="{address}" aria-label="The result"></video>'
        "<figcaption>New words</figcaption></figure></div>"
        f'<div class="ls-controls"><button type="button" data-play aria-label="Play">{PLAY}</button>'
        f'<div class="ls-track">{strip_view(runs, result)}'
        '<input type="range" data-seek min="0" max="1000" step="1" value="0" aria-label="Position in the video"></div>'
        '<output data-time aria-hidden="true">0:00</output>'
        f'<button type="button" data-mute aria-label="Mute" aria-pressed="false">{SPEAKER}</button></div>'
        f'<div class="ls-report"><div><h3>{escape(first)}</h3>{f"<ul>{report}</ul>" if report else ""}</div>'
        f'<a class="ls-download" href="{address}" download="{escape(result.output_path.name, quote=True)}">Download</a></div>'
        f'<p class="ls-small">{escape(describe_work(result, title))}</p></section>'
    )


def strip_view(runs: list[Stretch], result: LipsyncResult) -> str:
    """The result as a strip: which stretches have a new mouth, which were left alone and why."""
    parts = []
    for run in runs:
        place = describe_place(run, result.fps)
        what = f"{place}: left as it was ({run.reason})" if run.reason else f"{place}: new mouth"
        share = 100 * run.frames / result.frames
        parts.append(
            f'<i class="{"ls-left" if run.reason else "ls-synced"}" style="width:{share:.3f}%" title="{escape(what, quote=True)}"></i>'
        )
    synced = 100 * result.generated / result.frames
    return f'<div class="ls-strip" role="img" aria-label="{synced:.0f} % of the frames have a new mouth">{"".join(parts)}</div>'


HOUR = 3600
OLDEST = 12 * HOUR  # uploads that no session claimed are removed after this time
FACES = (("The largest face", "largest"), ("The leftmost face", "left"), ("The rightmost face", "right"))
LENGTHS = (("As long as the sound", "audio"), ("As long as the video", "video"))
PRESETS = (DRAFT, STANDARD, FINE)
ABOUT_PRESETS = "Draft is a quick look, Standard what the model was made for, Fine takes twice the steps."
LOOK_AGAIN = 3.0  # seconds between two looks at whether the model is loaded
SHOW_OUTCOME = "() => document.getElementById('outcome').scrollIntoView({behavior: 'smooth', block: 'nearest'})"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass
class Form:
    """The inputs of the page."""

    video: gr.Video
    audio: gr.Audio
    people: gr.HTML
    model: gr.Dropdown
    about: gr.HTML
    preset: gr.Radio
    face: gr.Radio
    steps: gr.Slider
    guidance: gr.Slider
    seed: gr.Number
    dice: gr.Button
    length: gr.Radio
    keep_fps: gr.Checkbox
    crf: gr.Slider
    go: gr.Button
    stop: gr.Button

    @property
    def wishes(self) -> list[gr.components.Component]:
        """What a job is made of, in the order of `Page.make`."""
        choices = [self.model, self.face, self.steps, self.guidance, self.seed, self.length, self.keep_fps, self.crf]
        return [self.video, self.audio, self.people, *choices]


def resource(name: str) -> str:
    """A text file that lies beside this one."""
    return (files("latentsync.app") / name).read_text(encoding="utf-8")


def html(value: Any, **settings: Any) -> gr.HTML:
    """A piece of our own, without the margins of Gradio's texts."""
    return gr.HTML(value, apply_default_css=False, **settings)


class Page:
    """Builds the page for a desk.

    Args:
        desk: where the work goes.
        examples: inputs to try out with.
    """

    def __init__(self, desk: Handlers, examples: list[Example]) -> None:
        self._desk, self._shelf, self._examples = desk, desk.workshop.shelf, examples

    def build(self) -> gr.Blocks:
        """The whole page, its events and the API."""
        with gr.Blocks(title="LatentSync", analytics_enabled=False, delete_cache=(HOUR, OLDEST)) as page:
            html(header_view())
            with gr.Row(elem_classes="ls-main", equal_height=False):
                with gr.Column(scale=5, min_width=300, elem_classes="ls-form"):
                    form = self._form()
                with gr.Column(scale=6, min_width=300, elem_classes="ls-outcome"):
                    outcome = html(empty_view(), js_on_load=resource("player.js"), elem_id="outcome", elem_classes="ls-card")
            self._events(page, form, outcome)
            self._api()
        page.queue(default_concurrency_limit=None)
        return page

    def _form(self) -> Form:
        """The left side."""
        with gr.Group(elem_classes="ls-card"):
            html(heading_view(1, "A video of somebody talking", "The face should be clearly visible; other scenes stay as they are."))
            video = gr.Video(label="Video", sources=["upload", "webcam"], height=250, elem_id="video", show_label=False)
            people = html(
                NOBODY,
                html_template='<p class="ls-who">Who shall speak? Nobody chosen: the largest face.</p>'
                '<div class="ls-people" role="group" aria-label="Who shall speak"></div>',
                js_on_load=resource("people.js"),
                elem_id="people",
                visible="hidden",
            )
        with gr.Group(elem_classes="ls-card"):
            html(heading_view(2, "The new words", "A recording, or speak now. It is used as it is."))
            audio = gr.Audio(label="Sound", sources=["upload", "microphone"], type="filepath", elem_id="audio", show_label=False)
            self._try_out(video, audio)
        with gr.Group(elem_classes="ls-card"):
            html(heading_view(3, "How good, how fast", "The rest has sensible defaults."))
            choices = [(choice.title, key) for key, choice in self._shelf.choices.items()]
            default = self._shelf.default
            model = gr.Dropdown(choices, value=default.key, label="Model", elem_id="model", interactive=len(choices) > 1, filterable=False)
            about = html(model_view(default, self._shelf.loaded), elem_id="about-model")
            preset = gr.Radio(PRESETS, value=STANDARD, label="Quality", info=ABOUT_PRESETS, elem_id="preset")
            details = self._details()
        with gr.Row(elem_classes="ls-actions"):
            go = gr.Button("Make the video", variant="primary", size="lg", elem_id="go")
            stop = gr.Button("Stop", variant="stop", size="lg", elem_id="stop", visible=False)
        return Form(video=video, audio=audio, people=people, model=model, about=about, preset=preset, go=go, stop=stop, **details)

    def _try_out(self, video: gr.Video, audio: gr.Audio) -> None:
        """Examples, one button each."""
        if not self._examples:
            return
        with gr.Row(elem_classes="ls-examples"):
            html('<p class="ls-who">No clip at hand? Try</p>')
            for number, example in enumerate(self._examples, start=1):
                button = gr.Button(example.title, size="sm", variant="secondary", elem_id=f"example-{number}")
                button.click(self._example(example), outputs=[video, audio], **PRIVATE)

    def _example(self, example: Example) -> Any:
        def take(request: gr.Request) -> tuple[str, str]:
            folder = self._desk.sessions.job_folder(request.session_hash or "")
            video, audio = example.copy_to(folder)
            return str(video), str(audio)

        return take

    def _details(self) -> dict[str, Any]:
        """What few people need, folded."""
        steps, guidance, crf = settings_of(STANDARD, self._shelf.default)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            face = gr.Radio(FACES, value="largest", label="Who shall speak where nobody is chosen above")
            length = gr.Radio(LENGTHS, value="audio", label="How long is the result?", elem_id="length")
            steps_slider = gr.Slider(1, 100, steps, step=1, label="Steps", info="More are finer and slower.", elem_id="steps")
            guidance_slider = gr.Slider(
                1,
                5,
                guidance,
                step=0.1,
                label="Guidance",
                info="How strongly the sound moves the mouth; 1 switches it off and is twice as fast.",
            )
            with gr.Row(elem_classes="ls-seed"):
                seed = gr.Number(LipsyncOptions.seed, label="Seed", precision=0, minimum=0, info="The same seed gives the same video.")
                dice = gr.Button("Roll the dice", size="sm", elem_id="dice", min_width=120)
            keep_fps = gr.Checkbox(
                False, label="Keep the video's frame rate", info="Otherwise 25 frames a second, what the models know best."
            )
            crf_slider = gr.Slider(10, 35, crf, step=1, label="Compression (crf)", info="Lower looks better and makes larger files.")
        sliders = {"steps": steps_slider, "guidance": guidance_slider, "crf": crf_slider}
        return {"face": face, "length": length, "seed": seed, "dice": dice, "keep_fps": keep_fps, **sliders}

    def _events(self, page: gr.Blocks, form: Form, outcome: gr.HTML) -> None:
        """Which event goes where."""
        form.video.change(self._look, [form.video], [form.people], **PRIVATE)
        form.audio.change(self._hear, [form.audio], None, **PRIVATE)
        form.dice.click(fresh_seed, None, [form.seed], **PRIVATE)
        settings = [form.steps, form.guidance, form.crf]
        form.preset.input(self._settings, [form.preset, form.model], settings, **PRIVATE)
        form.model.input(self._settings, [form.preset, form.model], settings, **PRIVATE)
        gr.on([form.model.input, page.load], self._about, [form.model], [form.about], **PRIVATE)
        timer = gr.Timer(LOOK_AGAIN)
        timer.tick(self._tick, [form.model], [form.about, timer], **PRIVATE)
        form.go.click(None, js=SHOW_OUTCOME, **PRIVATE)
        making = form.go.click(self.make, form.wishes, [outcome, form.go, form.stop], **PRIVATE)
        making.then(self._about, [form.model], [form.about], **PRIVATE)
        form.stop.click(self._stop, None, None, **PRIVATE)
        page.unload(self._desk.end)

    def _api(self) -> None:
        """The endpoint that programs call; its inputs and outputs stand on no page."""
        with gr.Row(visible=False):
            files_in = [gr.File(label="video", type="filepath"), gr.File(label="audio", type="filepath")]
            texts = [gr.Textbox("largest", label="face"), gr.Textbox("", label="model")]
            numbers = [gr.Number(UNSET, label=name) for name in ("inference_steps", "guidance_scale")]
            seed = gr.Number(LipsyncOptions.seed, label="seed", precision=0)
            length = gr.Textbox("audio", label="length")
            keep_fps = gr.Checkbox(False, label="keep_fps")
            crf = gr.Number(UNSET, label="crf")
            outputs = [gr.File(label="result"), gr.JSON(label="report")]
            call = gr.Button("call")
        inputs = [*files_in, *texts, *numbers, seed, length, keep_fps, crf]
        call.click(self._desk.call, inputs, outputs, api_name="lipsync", api_description="Give the person in a video other words.")

    def _look(self, video: str | None, request: gr.Request) -> Any:
        found = self._desk.people(video, request.session_hash or "")
        return gr.HTML(found, visible=True if found["people"] else "hidden")

    def _hear(self, audio: str | None, request: gr.Request) -> None:
        self._desk.sessions.claim(request.session_hash or "", audio)

    def _settings(self, preset: str, model: str) -> tuple[int, float, int]:
        return settings_of(preset, self._shelf.choice(model))

    def _about(self, model: str) -> str:
        return model_view(self._shelf.choice(model), self._shelf.loaded)

    def _tick(self, model: str) -> tuple[str, gr.Timer]:
        """Until the first model is loaded."""
        return self._about(model), gr.Timer(active=self._shelf.loaded is None)

    def _stop(self, request: gr.Request) -> None:
        self._desk.workshop.cancel_owner(request.session_hash or "")

    async def make(
        self,
        video: str | None,
        audio: str | None,
        people: dict[str, list] | None,
        model: str,
        face: str,
        steps: float,
        guidance: float,
        seed: float,
        length: str,
        keep_fps: bool,
        crf: float,
        request: gr.Request,
    ) -> AsyncIterator[tuple[Any, Any, Any]]:
        """The button: progress until the end, then the result or the reason why there is none."""
        chosen = ";".join((people or NOBODY)["chosen"])
        wishes = FormValues(video, audio, chosen or face, model, steps, guidance, seed, length, keep_fps, crf)
        ready = (gr.Button(visible=True), gr.Button(visible=False))
        try:
            ticket = await asyncio.to_thread(self._desk.submit, wishes, request.session_hash or "")
        except LatentSyncError as error:
            yield notice_view("This did not work", str(error), "failed"), *ready
            raise toast(error) from None
        async for progress in self._desk.follow(ticket):
            yield progress_view(progress), gr.Button(visible=False), gr.Button(visible=True)
        if ticket.stage is JobStage.CANCELLED:
            yield notice_view("Stopped", "Nothing was made. The device is free for the next job.", "stopped"), *ready
        elif ticket.stage is JobStage.FAILED:
            yield notice_view("This did not work", self._desk.failure(ticket), "failed"), *ready
            raise toast(self._desk.failure(ticket))
        else:
            yield result_view(ticket, self._shelf.choice(ticket.order.model).title), *ready
