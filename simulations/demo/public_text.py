"""The demo's public text: a small generated world of everyday English, for the base model to learn.

It has names, verbs, products and numbers, but no customer messages, phone numbers or order ids. So
what the demo's users share is new to the base model.
"""

from collections.abc import Iterator
from random import Random

from feddp.simulations.demo.public_words import WORDS


def public_paragraphs(seed: int) -> Iterator[str]:
    """Endless paragraphs of one topic each, reproducible from the seed."""
    rng = Random(f"public/{seed}")
    while True:
        yield _paragraph(rng)


def _pick(rng: Random, choices: tuple[str, ...]) -> str:
    # Python guarantees the same numbers in every version only for random().
    return choices[int(rng.random() * len(choices))]


class _Slots(dict[str, str]):
    """Fills a template; persons and things stay the same within a paragraph."""

    def __init__(self, rng: Random):
        super().__init__()
        self.rng = rng

    def __missing__(self, slot: str) -> str:
        word = _pick(self.rng, WORDS[slot]).format_map(self)
        if slot in KEPT:
            self[slot] = word
        return word


def _paragraph(rng: Random) -> str:
    slots = _Slots(rng)
    topics = tuple(TOPICS.values())
    sentences = FREE if rng.random() < 0.6 else topics[int(rng.random() * len(topics))]
    shuffled = sorted(sentences, key=lambda _: rng.random())
    written = [text.format_map(slots) for text in shuffled[: 2 + int(rng.random() * 4)]]
    text = " ".join(text[0].upper() + text[1:] for text in written)
    text = text.lower() if rng.random() < 0.1 else text
    return text[:-1] + _pick(rng, ENDINGS) if rng.random() < 0.15 else text


ENDINGS = ("!", "!!", "...", "", "?", "?!")
KEPT = frozenset({"name", "friend", "town", "animal", "product", "dish", "team", "subject"})
"""Slots that a paragraph fills once."""

FREE = (
    "{clause}.", "{clause}.", "{clause}.", "{clause}.", "{clause} {when}.", "{clause}!",
    "{clause}, but {clause}.", "{clause}, and {clause}.", "{clause} because {clause}.",
    "if {clause}, {clause}.", "when {clause}, {clause}.", "{clause}, so {clause}.",
    "{name} {says} that {clause}.", '"{clause}," {says} {name}.', "I think that {clause}.",
    "can you {do} {np}?", "could you {do} {np} {when}?", "did {name} {do} {np}?",
    "do you {do} {np} {pp}?", "when will {np} be {quality}?", "where is {np}?",
    "is {np} {quality}?",
    "how long does it take to {do} {np}?", "how do I {do} {np}?", "why did {he} {do} {np}?",
    "who {did_any} {np}?", "what is the {quality} {noun}?", "have you {done} {np} yet?",
    "please {do} {np}.", "please {do} {np} {pp} as soon as you can.", "let me {do} {np}.",
    "{do} {np}, then {do} {np}.", "do not {do} {np} {when}.", "what a {quality} {noun}!",
    "{when}, {clause}.", "after {count} days {clause}.", "the {noun} was {done} by {np}.",
    "in {year}, {clause}.", "it took {digits} minutes to {do} {np}.",
    "the {noun} costs {digits} euros.",
    "the {noun} was sold for ${digits}.{digits} {when}.", "{name}, {do} {np}, thanks to {name}.",
    "my best regards to {name}.", "hi {name}, {clause}.", "hey, {clause}!",
    "dear {name}, {clause}. Cheers, {name}.", "only {name} cannot {do} {np} twice.",
    "{name} sends kind words to {name}.", "many thanks for {np}.",
)  # fmt: skip

TOPICS: dict[str, tuple[str, ...]] = {
    "story": (
        "{name} {did} a {adj} {thing} {place}.",
        "{name} {went} {place} {when}.",
        "{friend} {did} the {thing} because {because}.",
        "{when}, {name} and {friend} {went} {place}.",
        "the {thing} was {adj} and {adj}, but {name} {did} it.",
        '"I {did} a {adj} {thing}," {says} {name}.',
        "{name} was {feels} because {because}.",
        "there was a {adj} {thing} {place}, and {friend} {did} it {when}.",
        "{friend} {says} that {name} {went} {place}.",
        "nobody {did} the {colour} {thing} that {name} had left {place}.",
        "when {name} {went} {place}, {friend} was {feels}.",
    ),
    "animals": (
        "the {animal} is a {adj} animal that lives {place}.",
        "a {animal} eats {prey} and {prey}.",
        "in winter the {animal} looks for {prey} {place}.",
        "its {part} are {adj} and {colour}.",
        "most of them live for about {digits} years.",
        "a young {animal} stays with its mother for {count} months.",
        "people often see the {animal} {place} in {month}.",
        "the {animal} has {adj} {part} and can hear very well.",
    ),
    "things": (
        "this {adj} {product} is made of {material} and comes in {colour}.",
        "the {product} weighs {digits} grams and fits in a {adj} box.",
        "a {product} with a {adj} {material} cover is good for every home.",
        "you can use the {product} at home or when you travel.",
        "it was designed in {year} and is still made by hand in {town}.",
        "clean the {product} with warm water and keep it in a dry place.",
        "the {colour} {product} looks {adj} and lasts for many years.",
        "a good {product} does not cost much, but a {adj} one is hard to find.",
        "most people choose a {product} by its size, price and colour.",
    ),
    "news": (
        "the {official} of {town} will open a new {builds} in {month}.",
        "the {official} {says} on {day} that the {builds} would cost {digits} million.",
        "about {digits} people came to {town} {when} to see the {adj} {builds}.",
        "prices went up by {digits} per cent in {month}, the {official} {says}.",
        "the {builds} in {town} was closed on {day} because of {weather}.",
        "more than {digits} workers at the {builds} asked for better pay.",
        "a spokesman for the {official} {says} that no one was hurt.",
        "the old {builds} was built in {year} and is now {adj} and {adj}.",
    ),
    "sport": (
        "{team} won the game {digits} to {digits} on {day}.",
        "{name} scored {count} goals for {team} {when}.",
        "the match in {town} was delayed by {weather}.",
        "after {count} games {team} are at the top of the table.",
        "{name}, who joined {team} in {year}, will not play on {day}.",
        '"we played well," {says} the captain of {team}.',
        "about {digits} thousand fans watched {team} play {place}.",
    ),
    "cooking": (
        "to make {dish}, {cooks} the {food} and the {food}.",
        "{cooks} {digits} grams of {food} with some {food}.",
        "then {cooks} the {food} for {digits} minutes.",
        "add salt, {food} and a cup of water.",
        "serve the {dish} {adj} with {food} on the side.",
        "this {dish} is enough for {count} people.",
        "if you do not have {food}, you can use {food} instead.",
        "let the {dish} rest for {digits} minutes before you eat it.",
    ),
    "weather": (
        "there will be {weather} and {weather} in {town} on {day}.",
        "the morning starts with {weather}, and {weather} follows later.",
        "temperatures reach {digits} degrees {place}.",
        "in {month} it is usually {adj} here, with some {weather}.",
        "the night will be {adj} with {weather} near the coast.",
        "drivers should expect {weather} {when}.",
    ),
    "questions": (
        "question: what is {subject}? Answer: it is one of the things that people have studied "
        "since {year}.",
        "question: why do people learn about {subject}? Answer: because it is {adj} and useful.",
        "question: where does the {animal} live? Answer: it lives {place}.",
        "question: how long do you cook {dish}? Answer: about {digits} minutes.",
        "question: who {did} the {thing}? Answer: {name} {did} it {when}.",
        "question: what is a {product} made of? Answer: most of them are made of {material}.",
        "question: when did {name} go to {town}? Answer: {name} went there in {year}.",
    ),
    "lessons": (
        "the first book about {subject} was written in {year} by {name}.",
        "{subject} is taught in schools from the age of {digits}.",
        "many people think that {subject} is {adj}, but it is really quite {adj}.",
        "without {subject} there would be no {builds} and no {product}.",
        "we can learn {subject} by looking at {material} and {material}.",
        "{name} {says} that {subject} has {count} parts.",
        "in {year} scientists in {town} found out more about {subject}.",
    ),
    "talk": (
        '"how are you?" {says} {name}. "I am {feels}, and you?"',
        '"can you bring me the {thing}?" "it is {place}."',
        "I think that {name} is {feels} today.",
        "do you know where the {thing} is? I have not seen it since {day}.",
        "we would like to go to {town} {when}, if you can come.",
        "please tell {friend} that I {did} the {thing}.",
        '"hello, {name}," {says} {friend}, "I have a {thing} for you."',
        "thank you for the {thing}, it is very {adj}.",
        "I do not want to wait, but my {thing} is still {place}.",
        "could you help me with this {adj} {thing}? It will take {count} minutes.",
    ),
}
