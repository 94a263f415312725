"""The models that are there to choose from, and the one that is loaded."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latentsync.config import Config, Sampling, load_config
from latentsync.errors import InputError, LatentSyncError
from latentsync.pipelines.build import CONFIGS, EMBEDDED, ROOT, PathLike, find_config, find_denoisers, locate_models
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.memory import release_cached_memory

logger = logging.getLogger(__name__)

EMBEDDED_KEY, OWN_KEY = "embedded", "own"
NOTES = {
    "1.6": "Published weights, faces of 512 pixels: the sharpest teeth and lips, and the slowest.",
    "1.5": "Published weights, faces of 256 pixels: quicker and lighter than 1.6, a little softer.",
    "1.0": "Published weights of the first version, faces of 256 pixels.",
    EMBEDDED_KEY: "The small model that comes with the project. It has seen rendered people and a few recorded ones: good for trying "
    "things out. The published weights do much better.",
}


@dataclass(frozen=True)
class ModelChoice:
    key: str  # its short name, which the API takes
    title: str  # its name for a person
    note: str  # what to expect of it, in plain words
    config: Path
    unet: PathLike  # its checkpoint where that is not the one which the configuration names
    sampling: Sampling  # of jobs that choose nothing else


def find_models(
    config: PathLike = None, checkpoint: PathLike = None, overrides: Sequence[str] = (), root: Path = ROOT
) -> list[ModelChoice]:
    """The models whose files are there, the one to begin with first: that of `config` and `checkpoint` where the user names them.

    `overrides` are dotted settings for all models. Raises ConfigError, WeightsError: the named model is wrong, or there is none at all.
    """

    def choice(key: str, title: str, note: str, path: Path, unet: PathLike, settings: Config) -> ModelChoice:
        return ModelChoice(key, title, note, path, unet, settings.run.sampling)

    found = []
    if config is not None or checkpoint is not None:
        settings, files = locate_models(config, checkpoint, overrides=overrides)
        name, path = files.unet.name, files.config
        found.append(choice(OWN_KEY, f"Your model ({name})", f"{name} with {path.name}.", path, checkpoint, settings))
    places = {version: root / "configs" / "unet" / CONFIGS[version] for version in find_denoisers(root)}
    if (root / EMBEDDED).is_file():
        places[EMBEDDED_KEY] = root / EMBEDDED
    if not places and not found:
        find_config(root)  # says what is missing and where it comes from
    for key, path in places.items():
        title = "Embedded model" if key == EMBEDDED_KEY else f"LatentSync {key}"
        found.append(choice(key, title, NOTES[key], path, None, load_config(path, overrides)))
    return found


class ModelCache:
    """Holds one loaded model at a time, for any number of threads; another one takes its place when nobody uses it any more."""

    def __init__(self, choices: Sequence[ModelChoice], load: Callable[[ModelChoice], LipsyncPipeline]) -> None:
        self.choices, self.default = {choice.key: choice for choice in choices}, choices[0]
        self.loads = 0  # how often a model was loaded
        self.on_step: Callable[[], None] = lambda: None  # called before each pass of the denoiser, on the thread that makes it
        self.on_layer: Callable[[], None] = lambda: None  # called before each layer of all networks, likewise; may raise to stop
        self._load = load
        self._turn = threading.Lock()  # held while waiting, so that who asks first is served first
        self._changed = threading.Condition()
        self._users = 0
        self.loaded: str | None = None  # the key of the model that is loaded
        self._pipeline: LipsyncPipeline | None = None

    def choice(self, key: str | None) -> ModelChoice:
        """A model by its key, the default one for None or "". Raises InputError for a key that is none."""
        if not key:
            return self.default
        if key not in self.choices:
            raise InputError(f"There is no model {key!r} here: choose one of {', '.join(self.choices)}.")
        return self.choices[key]

    def preload(self) -> None:
        """Load the default model before somebody asks; what is wrong with it is told now, and again to whoever asks."""
        try:
            with self.use(self.default.key):
                pass
        except LatentSyncError as error:
            logger.error("%s", error)

    @contextmanager
    def use(self, key: str) -> Iterator[LipsyncPipeline]:
        """The pipeline of a model for the length of a block, loaded first where it is not. Raises LatentSyncError where it cannot be."""
        with self._turn, self._changed:
            while self._users and self.loaded != key:
                self._changed.wait()
            if self.loaded != key:
                choice = self.choice(key)
                self.loaded = self._pipeline = None  # the old model goes before the new one is loaded: both may not fit
                gc.collect()
                release_cached_memory()
                pipeline = self._load(choice)
                pipeline.set_progress_bar_config(disable=True)
                pipeline.unet.register_forward_pre_hook(lambda *_: self.on_step())
                for part in pipeline.components.values():
                    for layer in part.modules():
                        layer.register_forward_pre_hook(lambda *_: self.on_layer())
                self._pipeline, self.loaded = pipeline, choice.key
                self.loads += 1
                logger.info("%s is loaded (load %d of this run)", choice.title, self.loads)
            self._users += 1
            pipeline = self._pipeline
        try:
            yield pipeline
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()
