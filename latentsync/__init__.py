"""LatentSync: make the mouth in a video say the words of another recording (arXiv 2412.09262)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentsync.constants import VERSION as __version__

if TYPE_CHECKING:
    from latentsync.pipelines.build import build_pipeline
    from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
    from latentsync.pipelines.options import LipsyncOptions
    from latentsync.pipelines.script import DubbingLine, DubbingScript

__all__ = ["DubbingLine", "DubbingScript", "LipsyncOptions", "LipsyncPipeline", "__version__", "build_pipeline"]
_HOMES = {  # in latentsync.pipelines
    "build_pipeline": "build",
    "LipsyncPipeline": "lipsync_pipeline",
    "LipsyncOptions": "options",
    "DubbingLine": "script",
    "DubbingScript": "script",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: torch takes seconds, and not every command needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"latentsync.pipelines.{_HOMES[name]}"), name)
