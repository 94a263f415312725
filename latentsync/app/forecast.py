"""What the page says before a job is made: people, lengths, expected time, warnings."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from latentsync.app.jobs import JobQueue, JobRequest
from latentsync.app.messages import describe_seconds
from latentsync.app.people import FoundPeople
from latentsync.config import Sampling
from latentsync.faces.plan import MIN_WIDTH
from latentsync.media.audio import AudioSamples
from latentsync.media.probe import probe
from latentsync.pipelines.options import QUALITIES, LipsyncOptions

SMALL_WIDTH = 2 * MIN_WIDTH  # pixels of a face, under which its new mouth has few of them
LYING = {1: "on its side", 2: "upside down", 3: "on its side"}  # quarter turns of a face -> how it lies
LONGER = 0.1  # seconds by which the sound must be longer than the video before that is told


@dataclass(frozen=True)
class Forecast:
    """What will happen; None is what is not known (yet)."""

    people: FoundPeople | None = None
    video_seconds: float | None = None
    sound_seconds: float | None = None
    result_seconds: float | None = None
    seconds: float | None = None  # that the work takes on this machine
    by_quality: Mapping[str, float | None] = field(default_factory=dict)  # the same for each preset
    is_silent: bool = False

    def line(self) -> str:
        """One line: "2 people · video 4.0 s · sound 6.1 s · result 6.1 s (back and forth) · about 20 s of work"."""
        parts = []
        if self.people is not None:
            count = len(self.people.people)
            parts.append("nobody found" if not count else "1 person" if count == 1 else f"{count} people")
        parts += [
            f"{name} {value:.1f} s" for name, value in (("video", self.video_seconds), ("sound", self.sound_seconds)) if value is not None
        ]
        if self.result_seconds is not None:
            is_back = self.video_seconds is not None and self.result_seconds > self.video_seconds + LONGER
            parts.append(f"result {self.result_seconds:.1f} s" + (" (back and forth)" if is_back else ""))
            known = "time not known yet" if self.seconds is None else f"about {describe_seconds(self.seconds)} of work"
            parts.append(known)
        return " · ".join(parts)

    def warnings(self) -> list[str]:
        """What may go wrong, a sentence each."""
        found = []
        people = self.people
        if people is not None and not people.people:
            small = f"The face is very small ({people.widest:.0f} pixels wide, {MIN_WIDTH} are needed): take a larger picture."
            found.append(small if people.widest else "No face was found in the frames that were looked at: is it clearly visible?")
        elif people is not None:
            if people.widest < SMALL_WIDTH:
                found.append(f"The face is very small ({people.widest:.0f} pixels wide): the new mouth has little detail.")
            ways = sorted({LYING[person.turns] for person in people.people if person.turns in LYING})
            found += [f"A face lies {way}: if that is a mistake, turn the video first." for way in ways]
        if self.is_silent:
            found.append("The sound is silent: there are no words to move the mouth to.")
        return found


def is_silent(path: Path, longest: float) -> bool:
    """Whether nothing is heard in the first `longest` seconds of a sound. Raises InputError: there is none."""
    with AudioSamples(path, longest=longest) as samples:
        return len(samples) > 0 and samples.is_silent


def make_forecast(
    queue: JobQueue, video: Path | None, audio: Path | None, model: str, options: LipsyncOptions, people: FoundPeople | None, silent: bool
) -> Forecast:
    """What will happen with what is given so far; `options` as chosen on the page. Raises InputError for files that cannot be used."""
    own = queue.model_cache.choice(model).sampling
    known: dict[str, float | None] = {}
    if video is not None:
        info = probe(video)
        known["video_seconds"] = info.require_video().duration or info.duration
    if audio is not None:
        known["sound_seconds"] = probe(audio).require_audio().duration or probe(audio).duration
    if video is None or audio is None:
        return Forecast(people=people, is_silent=silent, **known)
    request = JobRequest(video, audio, options.completed(own), queue.model_cache.choice(model).key)
    if not request.frames:
        return Forecast(people=people, is_silent=silent, **known)
    presets = {name: replace(request, options=preset_options(name, own)) for name in QUALITIES}
    times = {name: queue.pace.whole(preset, request.frames) for name, preset in presets.items()}
    seconds, length = queue.pace.whole(request, request.frames), float(request.frames / request.fps)
    return Forecast(people, **known, result_seconds=length, seconds=seconds, by_quality=times, is_silent=silent)


def preset_options(quality: str, own: Sampling) -> LipsyncOptions:
    """A preset with the settings of a model, and nothing else chosen."""
    return LipsyncOptions(quality=quality).completed(own)
