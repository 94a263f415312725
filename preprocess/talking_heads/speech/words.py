"""The words that sentences are made of, and set phrases: chosen so that every phone of English comes often."""


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
LINKS = _cut(
    "and but because so while although before after until unless whenever",
    " ",
)
PRONOUNS = _cut(
    "I we they you she he nobody everybody",
    " ",
)
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
NUMBERED = _cut(
    "There were {n} of them|Turn to page {n}|The answer is {n}|It costs {n} dollars|The bus number is {n}|Her secret number is {n}"
    "|We counted {n} people|Add {n} to it|My room number is {n}|They walked {n} miles"
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
FOREIGN = {
    "de": _cut(
        "Guten Morgen, wie geht es Ihnen heute?|Wir möchten gern fünf frische Brötchen und zwei Stück Kuchen."
        "|Im Frühling blühen überall am Fluss die Apfelbäume.|Meine Großmutter erzählt abends oft von früher."
        "|Pass bitte auf, die Brücke ist sehr schmal!|Der Zug nach München fährt um halb sieben von Gleis vier ab."
        "|Hast du schon gehört, was gestern passiert ist?|Das Wetter bleibt bis Mittwoch wechselhaft und kühl."
        "|Über den Bergen schwebt ein bunter Ballon.|Bitte vergessen Sie Ihren Regenschirm nicht."
        "|Vielleicht treffen wir uns später vor dem Museum.|Wer früh aufsteht, sieht die Sonne über dem See."
        "|Mein Bruder baut ein Boot aus hellem Holz.|Diese Suppe braucht noch etwas Pfeffer und Petersilie."
        "|Wo haben Sie so gut Deutsch gelernt?|Am Wochenende backen wir gemeinsam Waffeln."
        "|Möchten Sie lieber Tee oder Kaffee?|Der Film beginnt erst um Viertel nach acht."
        "|Bring bitte frische Milch und vier Äpfel mit.|Die Kinder bauen am Strand eine Burg aus Sand."
    ),
    "es": _cut(
        "Buenos días, me alegro mucho de verte.|El pueblo duerme bajo un cielo lleno de estrellas."
        "|¿Puedes pasarme la sal, por favor?|Mi abuela prepara una sopa de verduras muy sabrosa."
        "|Mañana viajamos en tren hasta la playa.|No olvides cerrar bien la puerta."
        "|El perro blanco corre detrás de una pelota azul.|¿Cuánto cuesta este bonito sombrero?"
        "|Vamos a comprar pan, fruta y un poco de queso.|La biblioteca abre a las nueve y media."
        "|Un viejo barco cruza despacio la bahía.|Quizás llueva por la tarde, lleva el paraguas.|Bebemos agua fresca de la fuente."
        "|Todos los jueves jugamos al ajedrez en la plaza.|¡Qué sorpresa tan agradable!|Pablo pinta pequeñas mariposas de papel."
        "|¿Quieres tomar un café conmigo esta tarde?|Perdone, ¿dónde está la parada del autobús?"
        "|El maestro explica despacio la lección.|Mi primo trabaja en una panadería."
    ),
    "fr": _cut(
        "Bonjour madame, vous avez passé un bon voyage?|Nous voudrions deux cafés et une tarte aux pommes."
        "|Le vieux moulin tourne doucement au bord de la rivière.|Où se trouve la gare, s'il vous plaît?"
        "|Ma petite soeur joue du piano chaque matin.|Il fait beau, allons nous promener dans la forêt."
        "|Le boulanger ouvre sa boutique avant six heures.|Je ne me souviens plus de son prénom."
        "|Quelle belle surprise, merci beaucoup!|Un peu de beurre, de farine et trois oeufs suffisent."
        "|Les enfants cherchent des coquillages sur la plage.|Pouvez-vous répéter plus lentement?"
        "|La lune brille au-dessus des toits bleus.|Demain, mon frère prend le bateau pour la Corse."
        "|Chut, le bébé vient de s'endormir.|Fermez bien la fenêtre avant de partir."
        "|Voulez-vous boire un thé ou un chocolat chaud?|Le vent pousse les nuages vers la mer."
        "|Ta soeur parle très bien italien.|Combien coûte ce panier de cerises?"
        "|Un bateau rouge traverse lentement la baie.|Bonsoir, je voudrais une chambre pour deux nuits."
    ),
}
