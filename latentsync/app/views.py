"""The page's own pieces of HTML: header, progress, failure, result with its player, report and strip of time."""

from html import escape
from pathlib import Path
from urllib.parse import quote

from latentsync.app.models import ModelChoice
from latentsync.app.ticket import Progress, Stage, Ticket
from latentsync.app.words import TITLES, Stretch, describe_place, describe_progress, describe_result, describe_work, stretches
from latentsync.pipelines.report import LipsyncResult

MARK = (
    '<svg class="ls-mark" viewBox="0 0 40 40" aria-hidden="true"><rect width="40" height="40" rx="11"/>'
    '<path d="M8 21c4-6 8-7 12-5 4-2 8-1 12 5-4 7-8 9-12 9s-8-2-12-9Z"/><path class="ls-mark-line" d="M9 21h5l2-3 3 6 3-6 2 3h7"/></svg>'
)
PLAY = '<svg viewBox="0 0 20 20" aria-hidden="true"><path class="ls-if-paused" d="M6 3.5v13l11-6.5z"/><path class="ls-if-playing" d="M5 3.5h3.5v13H5zM11.5 3.5H15v13h-3.5z"/></svg>'  # noqa: E501 - one drawing
SPEAKER = '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M3 7.5v5h3.2L11 16.5v-13L6.2 7.5z"/><path class="ls-if-loud" d="M13.3 6.2a5 5 0 0 1 0 7.6l1 1.2a6.6 6.6 0 0 0 0-10z"/></svg>'  # noqa: E501 - one drawing
STEPS = (("look", Stage.LOOK, "Follow"), ("make", Stage.MAKE, "Make"), ("compare", Stage.COMPARE, "Compare"))


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


def progress_view(progress: Progress) -> str:
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


def result_view(ticket: Ticket, title: str) -> str:
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
