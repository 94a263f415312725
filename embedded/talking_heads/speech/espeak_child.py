"""Speaks one text with the eSpeak NG library, as a process of its own: nothing it keeps or breaks outlives it.

Started by file name; needs the standard library only. Standard input: one JSON object with the keys text, voice ("en-us+f2"), rate (words
a minute), pitch (0..100, 50 is the voice's own) and libraries (names to try). Standard output: one line of JSON, {"rate": samples a second,
"events": [[phone in IPA, first sample], ...]} with "" for pauses, then the samples as 16-bit little-endian numbers. Exit status: 0, or
NO_LIBRARY, NO_VOICE, NO_SPEECH.
"""

import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path

NO_LIBRARY, NO_VOICE, NO_SPEECH = 3, 4, 5

# Numbers of the library's interface (speak_lib.h)
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the samples go to the callback, and the call returns when all are there
_PHONEME_EVENTS, _PHONEME_IPA = 1, 2
_RATE, _PITCH = 1, 3
_EVENT_END, _EVENT_PHONEME = 0, 7
_UTF8 = 1


class _Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def load(names: Sequence[str]) -> ctypes.CDLL | None:
    """The first of the libraries that this machine has."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def has_voice(library: ctypes.CDLL, voice: str) -> bool:
    """Choose the voice; the library itself would pass over an unknown variant in silence."""
    folder = ctypes.c_char_p()
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Info(ctypes.byref(folder))
    variant = voice.partition("+")[2]
    known = not variant or (Path((folder.value or b"").decode()) / "voices" / "!v" / variant).is_file()
    return known and library.espeak_SetVoiceByName(voice.encode()) == 0


def synthesise(library: ctypes.CDLL, text: str) -> tuple[bytes, list[tuple[str, int]]]:
    """Samples (16-bit) and phone events (IPA, first sample) of a text."""
    blocks: list[bytes] = []
    events: list[tuple[str, int]] = []

    def collect(samples: int | None, count: int, event: "ctypes._Pointer[_Event]") -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        place = 0
        while event[place].type != _EVENT_END:
            if event[place].type == _EVENT_PHONEME:
                events.append((event[place].name.decode("utf-8", "ignore"), event[place].sample))
            place += 1
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    encoded = text.encode()
    library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return b"".join(blocks), events


def main() -> int:
    """Read the request, write the speech; returns the exit status."""
    request = json.load(sys.stdin)
    library = load(request["libraries"])
    if library is None:
        return NO_LIBRARY
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _PHONEME_IPA)
    if rate <= 0:
        return NO_LIBRARY
    if not has_voice(library, request["voice"]):
        return NO_VOICE
    library.espeak_SetParameter(_RATE, int(request["rate"]), 0)
    library.espeak_SetParameter(_PITCH, int(request["pitch"]), 0)
    samples, events = synthesise(library, request["text"])
    if not samples or not events:
        return NO_SPEECH
    sys.stdout.buffer.write(json.dumps({"rate": rate, "events": events}).encode() + b"\n" + samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
