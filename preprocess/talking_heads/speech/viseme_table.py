"""The visemes: what each aims at, how much it insists, and which phones look like it.

Channels, each in [0, 1] (spread from -0.3):
jaw 1 is the widest opening of speech, about 2.6 cm between the incisors' edges; spread: corners outwards; pucker: corners inwards, lips
forwards; funnel: lips forwards and round open; closure 1: the lips touch however far the jaw is open; upper_lip, lower_lip: the lip moves
away from the other; tuck: lower lip under the upper teeth; press: lips pressed thin; tongue_up: tip at the ridge; tongue_out: tip between
the teeth.
"""

import numpy as np

CHANNELS = ("jaw", "spread", "pucker", "funnel", "closure", "upper_lip", "lower_lip", "tuck", "press", "tongue_up", "tongue_out")

# viseme: its targets (what is not named is 0) | dominance: one number for all channels, then those that differ
_TABLE = """
silence     jaw .02 closure 1                                                      | 0.9 closure .7 tongue_up .3
bilabial    jaw .10 closure 1 press .6                                             | 0.25 jaw 1.1 closure 1.6 upper_lip 2 lower_lip 2
labial      jaw .14 closure .55 pucker .10                                         | 0.4 jaw .9 closure 2.5
labiodental jaw .10 upper_lip .22 tuck .92                                         | 0.3 jaw 1.2 closure 2 upper_lip 1.6 lower_lip 3 tuck 4
dental      jaw .15 upper_lip .08 lower_lip .25 tongue_out .85 tongue_up .3        | 0.4 jaw 1 closure 1.5 tongue_out 5 tongue_up 3
stop        jaw .13 spread .08 upper_lip .10 lower_lip .28 tongue_up 1             | 0.35 jaw .9 closure 1.5 tongue_up 5
nasal       jaw .15 spread .06 upper_lip .08 lower_lip .24 tongue_up .95           | 0.3 jaw .7 closure 1.5 tongue_up 5
lateral     jaw .24 spread .04 upper_lip .10 lower_lip .25 tongue_up 1             | 0.35 jaw .8 closure 1.5 tongue_up 5
trill       jaw .22 upper_lip .08 lower_lip .22 tongue_up .8                       | 0.35 jaw .8 closure 1.5 tongue_up 4
sibilant    jaw .05 spread .26 upper_lip .18 lower_lip .40 tongue_up .6            | 0.5 jaw 1.8 closure 2 lower_lip 1 tongue_up 3
hush        jaw .08 funnel .75 upper_lip .3 lower_lip .34 tongue_up .45            | 1 jaw 1.7 spread 1.5 funnel 2.6 closure 2 tongue_up 2
velar       jaw .20 upper_lip .06 lower_lip .20                                    | 0.25 jaw .5 closure 1.2 tongue_up 1
palatal     jaw .11 spread .50 upper_lip .15 lower_lip .26                         | 0.8 jaw 1.1 closure 1.5
breath      jaw .26 lower_lip .10                                                  | 0.12 closure .8
rhotic      jaw .13 pucker .18 funnel .48 upper_lip .08 lower_lip .14 tongue_up .2 | 0.6 funnel 1.7 pucker 1.3 closure 1.5
glide       jaw .06 pucker .95 funnel .18 closure .14                              | 0.9 jaw 1.3 pucker 3 funnel 1.6 spread 2
ee          jaw .14 spread .72 upper_lip .22 lower_lip .30                         | 1 closure 1.6
ih          jaw .24 spread .42 upper_lip .16 lower_lip .26                         | 0.9 closure 1.6
e           jaw .28 spread .56 upper_lip .20 lower_lip .28                         | 1 closure 1.6
eh          jaw .43 spread .34 upper_lip .20 lower_lip .30                         | 1 jaw 1.2 closure 1.6
ae          jaw .60 spread .32 upper_lip .26 lower_lip .34                         | 1.05 jaw 1.4 closure 1.6
a           jaw .64 spread .10 upper_lip .20 lower_lip .28                         | 1.05 jaw 1.4 closure 1.6
aa          jaw .68 spread -.06 upper_lip .16 lower_lip .26                        | 1.05 jaw 1.4 closure 1.6
ah          jaw .45 upper_lip .12 lower_lip .22                                    | 0.9 jaw 1.2 closure 1.6
schwa       jaw .26 upper_lip .08 lower_lip .16                                    | 0.5
er          jaw .22 pucker .10 funnel .42 upper_lip .10 lower_lip .18              | 0.8 closure 1.6 funnel 1.2
aw          jaw .54 pucker .14 funnel .46 spread -.10 upper_lip .12 lower_lip .16  | 1 jaw 1.3 closure 1.6 funnel 1.4
o           jaw .32 pucker .48 funnel .46 spread -.06 upper_lip .08 lower_lip .10  | 1 closure 1.6 pucker 1.4 funnel 1.3
oo          jaw .23 pucker .38 funnel .36 upper_lip .08 lower_lip .10              | 0.9 closure 1.6 pucker 1.2 funnel 1.2
u           jaw .13 pucker .90 funnel .30                                          | 1 closure 1.6 pucker 2 funnel 1.3
ue          jaw .12 pucker .85 funnel .26                                          | 1 closure 1.6 pucker 2 funnel 1.3
oe          jaw .28 pucker .52 funnel .48 upper_lip .08 lower_lip .10              | 1 closure 1.6 pucker 1.5 funnel 1.4
"""

_PHONES = """
silence sil | bilabial p b m | labial bh | labiodental f v | dental th dh | stop t d dx | nasal n | lateral l | trill rr | sibilant s z
hush sh zh ch jh | velar k g ng x q | palatal y hy | breath hh | rhotic r | glide w | ee iy | ih ih | e e | eh eh | ae ae | a a | aa aa
ah ah | schwa ax | er er | aw ao | o o | oo uh | u uw | ue ue | oe oe
"""

_DIPHTHONGS = {"aw": ("a", "oo"), "ay": ("a", "ih"), "ey": ("e", "ee"), "ow": ("o", "u"), "oy": ("aw", "ih")}


def _row(words: list[str], fill: float) -> np.ndarray:
    """Channels (float64 11) from a list name, value, name, value."""
    row = np.full(len(CHANNELS), fill)
    for name, value in zip(words[::2], words[1::2], strict=True):
        row[CHANNELS.index(name)] = float(value)
    return row


def _read_table() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    targets, dominance = {}, {}
    for line in _TABLE.strip().splitlines():
        aim, _, insistence = line.partition("|")
        name, *words = aim.split()
        general, *special = insistence.split()
        targets[name], dominance[name] = _row(words, 0.0), _row(special, float(general))
    return targets, dominance


def _read_phones() -> dict[str, tuple[str, ...]]:
    entries = (entry.split() for line in _PHONES.strip().splitlines() for entry in line.split("|"))
    return {phone: (viseme,) for viseme, *phones in entries for phone in phones} | _DIPHTHONGS


TARGETS, DOMINANCE = _read_table()  # viseme -> float64 11
PHONE_VISEMES = _read_phones()  # phone -> its visemes in turn
