"""Sentences to speak: statements, questions and set phrases, from word lists in which every phone of English comes often.

Every sentence is about one or more things, its topics: a pair of verb and noun, or a set phrase. A caller can forbid topics,
which is how two collections of sentences are kept from sharing any.
"""

from collections.abc import Callable, Sequence

import numpy as np

from latentsync.errors import InputError


def _cut(text: str, separator: str = "|") -> tuple[str, ...]:
    return tuple(text.split(separator))


PEOPLE = _cut(
    "Adam Agatha Ben Bridget Charles Chloe David Daphne Edith Ethan Fiona Frank George Grace Harvey Heather Ian Ivy Jack Judith"
    " Kevin Kate Laura Leo Martha Matthew Nathan Nora Oscar Olive Paul Phoebe Quentin Rachel Robert Sheila Simon Theo Theresa"
    " Ursula Victor Vivian Walter Wendy Yvonne Zachary Zoe",
    " ",
)
NOUNS = _cut(
    "apple arrow baby bakery balloon barrel basket bathtub beach bell bicycle bird blanket boat book bottle bowl box breeze bridge"
    " brother brush bucket butterfly button cabin cake camera candle carpet castle cathedral cave chair cheese cherry chimney"
    " church circle city cloth cloud coat coffee coin comb computer cousin cow crowd cup curtain daughter desk doctor dolphin"
    " donkey door dragon dream drum earring elbow elephant engine envelope factory farm feather fence fiddle finger fish flag"
    " flower flute forest fork fountain friend frog garage garden gate giraffe glass glove goat hammer harbour hat heart honey"
    " horse hospital house island jacket jar jewel journey juice jungle kettle key kitchen kite knife ladder lake lamp leaf lemon"
    " letter library lion lock machine map market meadow measure message milk mirror money moon mother mountain mouse movie"
    " mushroom music napkin needle neighbour nest newspaper notebook number oak oboe ocean office onion orange oven owl oyster"
    " paper parcel path peach pebble pencil pepper phone photograph piano picture pillow pipe planet pocket poem potato puppy"
    " puzzle queen rabbit radio railway ribbon ring river road robot roof rope rug sailor sandwich scarf school shadow sheep shell"
    " ship shirt shoe shop shovel singer sister soap song soup spider spoon stable station statue stone storm story stove street"
    " suitcase sword table tailor teacher teapot television theatre thimble thread thumb ticket tiger toad tomato tooth towel tower"
    " toy train treasure tree trumpet tunnel umbrella uncle vase vegetable village violin visitor voice wagon wall watch water"
    " waterfall whale wheel whistle window wolf yacht yard zebra",
    " ",
)
ADJECTIVES = _cut(
    "amazing ancient beige big bitter blue bold brave brief bright broad broken brown busy calm casual cheap cheerful clever cold"
    " dark deep dusty early easy empty enormous fancy fast fierce foolish fresh friendly funny gentle golden good gray green happy"
    " healthy heavy huge hungry icy jolly joyful large lazy light little long loud lovely lucky mild modern muddy narrow new noisy"
    " northern odd old orange other pale peaceful perfect pink plain poor precious pretty proud purple quick quiet rare red rich"
    " rough round royal rusty sad shallow sharp shiny short shy silent silver simple sleepy slow small smooth soft sour southern"
    " square strange strong stubborn sunny sweet tall thick thin thirsty tiny ugly unusual useful vast velvet violet warm weak wet"
    " white whole wide wild wise wooden worthless yellow young",
    " ",
)
# plain form and past
VERBS = tuple(
    _cut(pair, "/")
    for pair in _cut(
        "admire/admired|ask about/asked about|avoid/avoided|bathe/bathed|beat/beat|borrow/borrowed|bring/brought|brush/brushed"
        "|build/built|buy/bought|call for/called for|carry/carried|catch/caught|change/changed|choose/chose|clean/cleaned"
        "|close/closed|copy/copied|count/counted|cover/covered|deliver/delivered|describe/described|discover/discovered"
        "|divide/divided|draw/drew|drop/dropped|enjoy/enjoyed|examine/examined|explain/explained|fetch/fetched|find/found"
        "|finish/finished|fix/fixed|follow/followed|forget/forgot|frighten/frightened|gather/gathered|give away/gave away"
        "|guard/guarded|hear/heard|hide/hid|hold/held|imagine/imagined|improve/improved|invite/invited|join/joined|judge/judged"
        "|keep/kept|laugh at/laughed at|leave/left|lend/lent|lift/lifted|lose/lost|love/loved|make/made|measure/measured"
        "|mention/mentioned|miss/missed|move/moved|need/needed|notice/noticed|offer/offered|open/opened|order/ordered|paint/painted"
        "|pay for/paid for|photograph/photographed|pick up/picked up|place/placed|polish/polished|praise/praised|promise/promised"
        "|protect/protected|pull/pulled|push/pushed|question/questioned|reach/reached|recognize/recognized|remember/remembered"
        "|remove/removed|repair/repaired|rub/rubbed|save/saved|search for/searched for|see/saw|sell/sold|send/sent|share/shared"
        "|shoot at/shot at|show/showed|sketch/sketched|smell/smelled|steal/stole|stop near/stopped near|study/studied"
        "|teach about/taught about|think about/thought about|throw/threw|touch/touched|treasure/treasured|trust/trusted|turn/turned"
        "|use/used|visit/visited|wait for/waited for|want/wanted|wash/washed|watch/watched|weigh/weighed|welcome/welcomed"
        "|wish for/wished for|worship/worshipped|write about/wrote about"
    )
)
DETERMINERS = _cut("the|the|a|my|your|his|her|our|their|this|that|every|each|one|some other|any")
LINKS = _cut("and|but|because|so|while|although|before|after|until|unless|whenever")
PRONOUNS = _cut("I|we|they|you|she|he|nobody|everybody")
QUESTIONS = _cut(
    "Did {who}|Why did {who}|How did {who}|When did {who}|Could {who}|Would {who}|Should {who}|Where does {who}|How often did {who}"
)
ADVERBS = _cut(
    "again|always|at home|at noon|before breakfast|behind the scenes|by the fireside|every week|for a whole hour|from above"
    "|from far away|in the morning|in the south|just in time|last summer|near the beach|on Monday|on Thursday|once more|over there"
    "|quickly|quietly|rather slowly|several times|this year|through the night|together|twice|under the bridge|with a big smile"
    "|with both hands|without a word|yesterday"
)
OPENINGS = _cut(
    "Well,|Maybe|I think|We all know that|Of course,|People say that|Please tell me why|However,|Today,|Look,|You can see how"
    "|As you know,|By the way,|For example,|Somebody told me that|In the beginning,|Usually,|Oh,|Yes,|No,|My father believes that"
    "|Unfortunately,"
)
PHRASES = _cut(
    "Thank you very much.|Good morning, everybody.|Good evening.|How are you today?|I beg your pardon?|What a beautiful view!"
    "|Never mind.|See you tomorrow.|That is not fair!|Why not?|Of course I will.|Have a pleasant journey.|Welcome back."
    "|Please, sit down.|Be careful!|I have no idea.|Who knows?|Perhaps we should go.|Wait for me, please.|What time is it?"
    "|It is half past five.|Nothing much.|That makes perfect sense.|Could you say that again?|I am sorry to hear that.|My pleasure."
    "|Excuse me, is this seat free?|Both of them, I suppose.|Keep up the good work!|Where have you been?|Enough is enough."
    "|Happy birthday to you!|Let me think about it.|You must be joking.|I would rather stay home.|Things could be worse."
    "|By all means.|Above all, be patient.|What do you mean by that?|Everything is under control.|Push the yellow button."
    "|Which way is north?|Are you serious?|I could not agree more.|Make yourself at home.|Once upon a time.|Better safe than sorry."
    "|We should leave now.|Hush, the baby is asleep.|It was a great pleasure to meet you.|Please pass me the pepper."
    "|Do you measure twice?|Five minutes, no more.|Few people have seen it.|Far from it.|Now or never.|Bring your own umbrella."
    "|No, not at all.|Maybe some other time.|Beware of the puppy."
)
Allowed = Callable[[str], bool]
_TRIES = 10_000  # topics that are drawn before none is held to be allowed


def draw_text(rng: np.random.Generator, least: int = 12, allowed: Allowed = lambda topic: True) -> str:
    """Sentences until they hold at least `least` words, all of their topics allowed. Raises InputError where nothing is allowed."""
    texts: list[str] = []
    while not texts or sum(len(text.split()) for text in texts) < least:
        kind = rng.choice(3, p=(0.6, 0.24, 0.16))
        texts.append((_statement, _question, lambda rng, allowed: _until(allowed, lambda: _one(rng, PHRASES)))[kind](rng, allowed))
    return " ".join(texts)


def _one(rng: np.random.Generator, choice: Sequence[str]) -> str:
    return choice[rng.integers(len(choice))]


def _until(allowed: Allowed, draw: Callable[[], str]) -> str:
    """The first topic drawn that is allowed."""
    for _ in range(_TRIES):
        topic = draw()
        if allowed(topic):
            return topic
    raise InputError(f"none of {_TRIES} topics was allowed, the last was {topic!r}: allow more of them")


def _noun_phrase(rng: np.random.Generator, noun: str) -> str:
    rest = f"{_one(rng, ADJECTIVES)} {noun}" if rng.random() < 0.65 else noun
    determiner = _one(rng, DETERMINERS)
    return f"{'an' if determiner == 'a' and rest[0] in 'aeiou' else determiner} {rest}"


def _someone(rng: np.random.Generator) -> str:
    kind = rng.random()
    return _one(rng, PEOPLE if kind < 0.35 else PRONOUNS) if kind < 0.55 else _noun_phrase(rng, _one(rng, NOUNS))


def _action(rng: np.random.Generator, allowed: Allowed, tense: int) -> str:
    """A predicate in plain form (tense 0) or past (1); verb and noun together are the topic."""
    verb, noun = _until(allowed, lambda: f"{rng.integers(len(VERBS))} {_one(rng, NOUNS)}").split(" ")
    return f"{VERBS[int(verb)][tense]} {_noun_phrase(rng, noun)}"


def _statement(rng: np.random.Generator, allowed: Allowed) -> str:
    text = f"{_someone(rng)} {_action(rng, allowed, 1)}"
    if rng.random() < 0.5:
        text += f" {_one(rng, ADVERBS)}"
    if rng.random() < 0.3:
        text = f"{_one(rng, OPENINGS)} {text}"
    if rng.random() < 0.3:
        text += f", {_one(rng, LINKS)} {_someone(rng)} {_action(rng, allowed, 1)}"
    return text[0].upper() + text[1:] + ("!" if rng.random() < 0.12 else ".")


def _question(rng: np.random.Generator, allowed: Allowed) -> str:
    text = f"{_one(rng, QUESTIONS).format(who=_someone(rng))} {_action(rng, allowed, 0)}"
    return text + (f" {_one(rng, ADVERBS)}?" if rng.random() < 0.35 else "?")
