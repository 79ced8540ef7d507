"""Short stories, written by a grammar: the text that models/inferneo-story and its draft learn from.

A story picks a hero, a friend, a place, a thing and a plot, then fills the plot's beats. Names, pronouns and things stay
the same from the first sentence to the last; a template may hold choices, `[one|another]`, and slots, `{name}`.
Combinations of hero, thing and plot whose hash falls on HELD_OUT never reach training: the held-out loss is taken on them.
"""
import random
import re
import zlib

from text_story_plots import PLOTS, SLOTS

HELD_OUT = 25  # one combination in so many

PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
}
NAMES = {
    "he": ["Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Oscar", "Milo", "Hugo", "Theo", "Jack", "Otto", "Felix", "Noah",
           "Pip", "Bruno", "Toby", "Arlo", "Ravi", "Kofi"],
    "she": ["Lily", "Mia", "Anna", "Zoe", "Ella", "Ruby", "Nora", "Ivy", "Luna", "Rosa", "Clara", "Daisy", "Maya", "Tess",
            "Wren", "Poppy", "Hazel", "Amira", "Juno", "Sofia"],
}
ANIMALS = ["fox", "rabbit", "bear", "mouse", "owl", "cat", "dog", "hedgehog", "squirrel", "turtle", "frog", "duck",
           "penguin", "elephant", "lion", "monkey", "otter", "badger", "beaver", "goat", "pony", "dragon", "robot",
           "koala", "deer", "tiger", "unicorn", "wolf"]
PEOPLE = {"he": ["boy", "prince", "baker", "sailor", "farmer", "painter", "knight", "wizard", "gardener", "pirate"],
          "she": ["girl", "princess", "baker", "sailor", "farmer", "painter", "knight", "witch", "gardener", "pirate"]}
TRAITS = ["brave", "curious", "kind", "clever", "shy", "cheerful", "gentle", "small", "young", "quiet", "lively", "patient",
          "sleepy", "merry", "careful", "hungry"]
PLACES = ["in a green forest", "in a small village", "in a quiet valley", "in a town by the sea", "in a house on a hill",
          "in a sunny meadow", "in a big city", "in an old castle", "on a snowy mountain", "in a wide desert",
          "on an island in the sea", "on a farm near the river", "in a garden full of flowers", "in a cottage in the woods",
          "in a village by the lake", "in a lighthouse by the sea"]


def article(noun):
    return ("an " if noun[0] in "aeiou" and not noun.startswith("uni") else "a ") + noun


def expand(template, slots, rng):
    """Resolves choices from the inside out, then slots; the letter after a full stop is made a capital."""
    pattern = re.compile(r"\[([^\[\]]*)\]")
    while True:
        match = pattern.search(template)
        if not match:
            break
        template = template[:match.start()] + rng.choice(match.group(1).split("|")) + template[match.end():]
    text = template.format_map(slots)
    text = re.sub(r"\s+", " ", text).strip()
    # After `!"` or `?"` comes who said it, in small letters; after `."` a new sentence.
    return re.sub(r"(^\"?|[.!?] \"?|\.\" \"?)([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)


def character(rng, taken, prefix, kind=None):
    gender = rng.choice(["he", "she"])
    people = rng.random() < 0.35
    if kind is None:
        kind = rng.choice([k for k in (PEOPLE[gender] if people else ANIMALS) if k not in taken])
    elif kind in PEOPLE["he"] and kind not in PEOPLE["she"]:
        gender = "he"
    elif kind in PEOPLE["she"] and kind not in PEOPLE["he"]:
        gender = "she"
    name = rng.choice([n for n in NAMES[gender] if n not in taken])
    trait = rng.choice(TRAITS)
    slots = {prefix + key: value for key, value in PRONOUNS[gender].items()}
    slots.update({prefix + "name": name, prefix + "kind": kind, prefix + "trait": trait,
                  prefix + "a_kind": article(kind), prefix + "a_trait": article(trait)})
    return slots


class Story:
    """One draw: its slots are also what a request for it may mention."""

    def __init__(self, rng):
        self.rng = rng
        self.plot_name = rng.choice(sorted(PLOTS))
        plot = PLOTS[self.plot_name]
        slots = character(rng, (), "")
        slots.update(character(rng, (slots["name"], slots["kind"]), "f_"))
        slots["in_place"] = rng.choice(PLACES)
        preposition, _, bare = slots["in_place"].split(" ", 2)
        slots["the_place"] = "the " + bare
        slots["in_the_place"] = f"{preposition} the {bare}"
        for key, words in SLOTS.items():
            slots[key] = rng.choice(words)
        slots["thing"] = rng.choice(plot["things"])
        slots["a_thing"] = article(slots["thing"])
        self.slots = slots
        self.plot = plot

    def held_out(self):
        key = f"{self.slots['kind']}/{self.slots['thing']}/{self.plot_name}"
        return zlib.crc32(key.encode()) % HELD_OUT == 0

    def text(self):
        paragraphs = []
        for beat in [OPENINGS] + self.plot["beats"] + [self.plot.get("endings", []) + ENDINGS]:
            paragraphs.append(expand(self.rng.choice(beat), self.slots, self.rng))
        # Three paragraphs: how it starts, what happens, how it ends.
        cut = 2 if len(paragraphs) > 4 else 1
        groups = [paragraphs[:cut], paragraphs[cut:-2], paragraphs[-2:]]
        return "\n\n".join(" ".join(group) for group in groups if group)


OPENINGS = [
    "Once upon a time, [there was|there lived] {a_trait} {kind} named {name}. {he} lived {in_place}.",
    "Once upon a time, {in_place}, [there lived|there was] {a_trait} {kind} named {name}.",
    "Once upon a time there was {a_trait} {kind}. {his} name was {name}, and {he} lived {in_place}.",
    "Once there was {a_kind} named {name} who lived {in_place}. {he} was [very|rather] {trait}, and {he} loved {hobby}.",
    "Long ago, {in_place}, {a_trait} {kind} named {name} lived [all alone|with {his} family]. {he} loved {hobby}.",
    "{in_place} lived {a_trait} {kind} named {name}. Every {daytime}, {he} loved {hobby}.",
    "There was once {a_trait} {kind} who lived {in_place}. Everyone called {him} {name}.",
    "{name} was {a_trait} {kind} who lived {in_place}. More than anything, {he} loved {hobby}.",
    "One {weather} {daytime}, {a_trait} {kind} named {name} was {hobby} {in_the_place}.",
    "Far away, {in_place}, {a_trait} {kind} named {name} woke up early. It was a {weather} {daytime}.",
    "The [little|{trait}|{trait} little] {kind} lived {in_place}. {his} name was {name}, and {he} loved {hobby}.",
    "{name} the {kind} lived {in_place}. {he} was [very|rather] {trait}, and {he} loved {hobby}.",
    "A [little|{trait}] {kind} named {name} lived {in_place}, and every {daytime} {he} was {hobby}.",
    "One {daytime}, [the little|a little] {kind} {name} was {hobby} {in_the_place}.",
]
ENDINGS = [
    "From that day on, {name} and {f_name} were the best of friends.",
    "That night, {name} fell asleep with a smile. {he} had learned that {lesson}.",
    "{name} and {f_name} walked home together, laughing all the way. They knew that {lesson}.",
    "And every time {name} saw {f_name}, {he} remembered that {lesson}.",
    "\"What a wonderful day!\" said {name}. And {f_name} agreed.",
    "From then on, everyone {in_the_place} knew that {lesson}.",
    "And they all lived happily ever after.",
]
REQUESTS = [
    "Tell me a story about {a_kind}.", "Tell me a story about {a_trait} {kind}.", "Tell me a story about {a_kind} and {f_a_kind}.",
    "Tell me a story about {a_kind} named {name}.", "Write a story about {a_kind} and {a_thing}.",
    "Can you tell me a story about {a_kind} who lives {in_place}?", "Please write a short story about {a_trait} {kind}.",
    "Tell me a short story.", "Tell me a story.", "Write a story about {name} and {f_name}.", "I want a story about {a_thing}.",
    "Write a short story about {a_kind}.", "Tell me a bedtime story about {a_kind} and {f_a_kind}, please.",
    "Once upon a time", "Make up a story about {a_thing}.", "tell me a story about {a_kind}", "A story about {a_kind}, please.",
]
SYSTEMS = ["You are a storyteller.", "You are a helpful assistant.", "You tell short stories to children.",
           "You are a helpful assistant that tells stories."]
SMALL_TALK = [
    (["Hello!", "Hi!", "Hello", "Hi", "Good morning!", "Hey there!"],
     ["Hello! Would you like to hear a story?", "Hi! I can tell you a story. Who should it be about?"]),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself."],
     ["I am a very small language model. I tell short stories.",
      "I am the small storyteller that comes with Inferneo. Ask me for a story!"]),
    (["What can you do?", "How can you help me?", "Can you help me?", "What do you know?"],
     ["I can tell short stories about animals, people and the things they find.",
      "I can tell you a story. Try asking for one about a fox and a lantern."]),
    (["Thank you!", "Thanks!", "That was nice.", "I like it.", "Good night!"],
     ["You are welcome! Would you like another story?", "I am glad that you liked it."]),
    (["How are you?", "How are you today?"], ["I am well, thank you. Shall I tell you a story?"]),
]


def draw(rng, held_out=False):
    while True:
        story = Story(rng)
        if story.held_out() == held_out:
            return story


def as_chat(story, rng):
    """The same story as the answer to a request, as a list of messages."""
    messages = []
    if rng.random() < 0.25:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    if rng.random() < 0.08:
        asked, answered = rng.choice(SMALL_TALK)
        messages += [{"role": "user", "content": rng.choice(asked)}, {"role": "assistant", "content": rng.choice(answered)}]
        if rng.random() < 0.4:
            return messages
    messages.append({"role": "user", "content": rng.choice(REQUESTS).format_map(story.slots)})
    messages.append({"role": "assistant", "content": story.text()})
    return messages


FACTS = [
    "{name} is {a_kind}.", "{name} is {trait}.", "{name} loves {hobby}.", "{name} lives {in_place}.", "{name} has {a_thing}.",
    "{name} is {a_trait} {kind}.", "{name} ate {food}.", "{name} said, \"I am {name}.\"", "The {kind} is {name}.", "{name} ran.",
    "{name} smiled, and {he} was {joy}.", "{name} lost {his} {thing}.", "\"Hello,\" said {name}.", "{his} name is {name}.",
    "{name} the {kind} was {feeling}.", "{name} hid {hiding}.", "\"Thank you, {name}.\"",
    "The {kind} was {trait}, and {his} name was {name}.", "{name} painted the {thing} {color}.", "{name} laughed at {himself}.",
    "Where is {name}? {he} is {hiding}.", "Who is {trait}? {name}.", "What is {name}? {a_kind}.", "{name} and {f_name} met.",
    "{name} helped {f_name}, and {f_name} thanked {name}.", "{f_name} is {f_a_kind}, and {name} is {a_kind}.",
    "{name} has {a_thing}. The {thing} is {color}.", "The {thing} broke. \"My {thing}!\" said {name}.", "What {a_thing}!",
    "\"Where is my {thing}?\" asked {name}. The {thing} was {hiding}.", "The {thing} is {color}.", "The {color} {thing} is {his}.",
    "{name} made {a_thing}, and it was the best {thing} of all.", "The {kind} loves the {thing}.", "The {thing} was {hiding}.",
    "{name} gave the {thing} to {f_name}, and {f_he} gave {name} {food}.", "{name} saw the {f_kind}. It was {f_name}.",
]


def notes(rng, held_out=False):
    """Facts about two characters. Names come back in every line, which is where a young model learns to copy them."""
    slots = dict(draw(rng, held_out).slots)
    turned = dict(slots)  # the same with hero and friend exchanged
    for key in ("name", "kind", "trait", "a_kind", "a_trait", "he", "him", "his", "himself"):
        turned[key], turned["f_" + key] = slots["f_" + key], slots[key]
    alone = [fact for fact in FACTS if "{f_" not in fact]
    both = rng.random() < 0.7
    lines = [expand(rng.choice(FACTS if both else alone), rng.choice([slots, turned]) if both else slots, rng)
             for _ in range(rng.randint(4, 14))]
    return "Notes: " + " ".join(lines)


BEGINNINGS = [
    ("Begin a story about {a_kind}.", "{opening}"), ("Begin a story about {a_trait} {kind}.", "{opening}"),
    ("Begin a story about {a_kind} named {name}.", "{opening}"), ("Who is the story about {a_kind} about?", "{name} the {kind}."),
    ("What does the {kind} find?", "The {kind} finds {a_thing}."), ("What is {a_kind}?", "{a_kind}, of course."),
    ("Begin a story about {a_thing}.", "{name} had {a_thing}. It was the best {thing} {in_the_place}."),
]


def beginnings(rng):
    """A chat in which every answer takes up what was asked for, and is short."""
    messages = []
    for _ in range(rng.randint(2, 5)):
        slots = draw(rng).slots
        asked, answered = rng.choice(BEGINNINGS)
        opening = rng.choice([o for o in OPENINGS if "{kind}" in o or "{a_kind}" in o])
        messages += [{"role": "user", "content": expand(asked, slots, rng)},
                     {"role": "assistant", "content": expand(answered.replace("{opening}", opening), slots, rng)}]
    return messages


def warm_up(rng):
    """What training begins with: what is to be copied from a request or from the line before, close by and often."""
    kind = rng.random()
    if kind < 0.4:
        return notes(rng)
    if kind < 0.7:
        return beginnings(rng)
    story = draw(rng)
    request = rng.choice([r for r in REQUESTS if "{kind}" in r or "{a_kind}" in r]).format_map(story.slots)
    return [{"role": "user", "content": request}, {"role": "assistant", "content": story.text()}]


def document(rng, held_out=False):
    """Either a plain text or a list of chat messages."""
    story = draw(rng, held_out)
    return as_chat(story, rng) if rng.random() < 0.4 else story.text()


if __name__ == "__main__":
    import sys
    generator = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for _ in range(8):
        print(document(generator), end="\n\n---\n\n")
