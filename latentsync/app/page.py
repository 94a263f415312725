"""The page: what stands where, and which event goes to which method of the desk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import gradio as gr

from latentsync.app.desk import DRAFT, FINE, NOBODY, STANDARD, UNSET, Desk, Wishes, fresh_seed, settings_of, toast
from latentsync.app.examples import Example
from latentsync.app.ticket import Stage
from latentsync.app.views import (
    empty_view,
    header_view,
    heading_view,
    model_view,
    notice_view,
    progress_view,
    result_view,
)
from latentsync.errors import LatentSyncError
from latentsync.pipelines.options import LipsyncOptions

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

    def __init__(self, desk: Desk, examples: list[Example]) -> None:
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
        wishes = Wishes(video, audio, chosen or face, model, steps, guidance, seed, length, keep_fps, crf)
        ready = (gr.Button(visible=True), gr.Button(visible=False))
        try:
            ticket = await asyncio.to_thread(self._desk.submit, wishes, request.session_hash or "")
        except LatentSyncError as error:
            yield notice_view("This did not work", str(error), "failed"), *ready
            raise toast(error) from None
        async for progress in self._desk.follow(ticket):
            yield progress_view(progress), gr.Button(visible=False), gr.Button(visible=True)
        if ticket.stage is Stage.CANCELLED:
            yield notice_view("Stopped", "Nothing was made. The device is free for the next job.", "stopped"), *ready
        elif ticket.stage is Stage.FAILED:
            yield notice_view("This did not work", self._desk.failure(ticket), "failed"), *ready
            raise toast(self._desk.failure(ticket))
        else:
            yield result_view(ticket, self._shelf.choice(ticket.order.model).title), *ready
