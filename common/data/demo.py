"""The demo's users: customers who write to a shop, each with a style and with known secrets.

Every message is generated, so utility, privacy and leakage can be measured against a known truth:
what all users share (the shop's language) is there to be learnt, what one user alone has (a phone
number, an order id) is there to be kept. A user is a pure function of (seed, index): however the
users are spread over nodes, they are the same users.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import NormalDist

from feddp.common.data.users import Example, InMemoryUsers
from feddp.common.errors import DataError

DEMO_NUM_USERS = 3_320
"""Generated users. With one in ten held out for evaluation, exactly 3,000 remain for training."""

MEDIAN_MESSAGES = 3.5
SIGMA_MESSAGES = 1.0  # of the log of the number of messages
MOST_MESSAGES = 60

_USER_ID = re.compile(r"user-(\d{5,})")
_SECRET = re.compile(r"(?P<phone>\b555-\d{4}-\d{4}\b)|(?P<order_id>\bSO-\d{6}\b)")


@dataclass(frozen=True)
class Secrets:
    """What only one user knows: shared with no other user of the same seed."""

    phone: str
    order_id: str


@dataclass(frozen=True)
class SecretSpan:
    """A sensitive stretch of a text: `text[start:end]`, and which of the secrets it is."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Style:
    """A user's habits: what makes the messages of one user alike and unlike those of others."""

    name: str
    greeting: str
    closing: str
    ending: str
    lower_case: bool
    city: str
    products: tuple[str, ...]
    topics: tuple[str, ...]
    habit: float  # probability that a message follows the habit


def demo_users(num_users: int = DEMO_NUM_USERS, seed: int = 0) -> InMemoryUsers:
    """The first `num_users` users of the demo, as every other source of users gives them."""
    return InMemoryUsers(
        [
            (user_id, [Example(text=message) for message in messages])
            for user_id, messages in demo_messages(num_users, seed)
        ]
    )


def demo_messages(num_users: int = DEMO_NUM_USERS, seed: int = 0) -> list[tuple[str, list[str]]]:
    """(user id, messages) of the users 0 to `num_users` - 1.

    >>> user_id, messages = demo_messages(2)[1]
    >>> user_id, messages[0][:51]
    ('user-00001', 'Hi, can you deliver my yoga mat to the pickup point')
    """
    return [(demo_user_id(index), user_messages(index, seed)) for index in range(num_users)]


def num_demo_users(one_in: int = 10) -> int:
    """Training users of the demo when one user in `one_in` is held out (0: none), by user id.

    >>> num_demo_users(10)
    3000
    """
    ids = map(demo_user_id, range(DEMO_NUM_USERS))
    return sum(not _is_held_out(user_id, one_in) for user_id in ids)


def _is_held_out(user_id: str, one_in: int) -> bool:
    """Whether a user serves evaluation: the rule of every table of users."""
    digest = hashlib.sha256(user_id.encode()).digest()
    return one_in > 0 and int.from_bytes(digest, "big") % one_in == 0


def demo_user_id(index: int) -> str:
    """The id of a user.

    >>> demo_user_id(42)
    'user-00042'
    """
    return f"user-{index:05d}"


def demo_secrets(user_id: str, seed: int = 0) -> Secrets:
    """The secrets of a user; no two users of a seed share one.

    Raises:
      DataError: the id is not one of the demo's.

    >>> demo_secrets("user-00042")
    Secrets(phone='555-2399-4726', order_id='SO-562541')
    """
    match = _USER_ID.fullmatch(user_id)
    if match is None:
        raise DataError(
            f'"{user_id}": not a user of the demo. Its ids are "user-00000", "user-00001", ...'
        )
    index = int(match[1])
    phone = _scatter(index, half=10_000, key=f"{seed}/phone")
    order = _scatter(index, half=1_000, key=f"{seed}/order")
    return Secrets(
        phone=f"555-{phone // 10_000:04d}-{phone % 10_000:04d}", order_id=f"SO-{order:06d}"
    )


def secret_spans(text: str) -> tuple[SecretSpan, ...]:
    """Every sensitive stretch of a message. Nothing else in the demo has the form of a secret.

    >>> secret_spans("Where is order SO-120077?")
    (SecretSpan(start=15, end=24, kind='order_id'),)
    """
    return tuple(SecretSpan(m.start(), m.end(), str(m.lastgroup)) for m in _SECRET.finditer(text))


def user_messages(index: int, seed: int = 0) -> list[str]:
    """The messages of one user: at least 1, a median of 3 to 4, at most 60."""
    rng = Random(f"{seed}/user/{index}")
    secrets = demo_secrets(demo_user_id(index), seed)
    style = _draw_style(rng)
    normal = NormalDist().inv_cdf(min(max(rng.random(), 1e-9), 1 - 1e-9))
    count = round(MEDIAN_MESSAGES * math.exp(SIGMA_MESSAGES * normal))
    return [_write(rng, style, secrets) for _ in range(min(max(count, 1), MOST_MESSAGES))]


def fresh_messages(user_id: str, num_messages: int, seed: int = 0) -> list[str]:
    """More messages of the same user, in the same style and with the same secrets.

    What the user could have written, for attacks that ask whether the user took part.

    Raises:
      DataError: the id is not one of the demo's.
    """
    secrets, index = demo_secrets(user_id, seed), int(user_id.removeprefix("user-"))
    style, rng = _draw_style(Random(f"{seed}/user/{index}")), Random(f"{seed}/fresh/{index}")
    return [_write(rng, style, secrets) for _ in range(num_messages)]


def _scatter(index: int, *, half: int, key: str) -> int:
    """A bijection of [0, half^2) that scatters: four Feistel rounds, so no two indices collide."""
    if index >= half * half:
        raise DataError(f"user {index}: the demo has secrets for {half * half} users at most.")
    left, right = divmod(index, half)
    for turn in range(4):
        digest = hashlib.sha256(f"{key}/{turn}/{right}".encode()).digest()
        left, right = right, (left + int.from_bytes(digest[:8], "big")) % half
    return left * half + right


def _pick(rng: Random, choices: Sequence[str]) -> str:
    # random() alone is promised to give the same numbers in every version of Python.
    return choices[int(rng.random() * len(choices))]


def _draw_style(rng: Random) -> Style:
    return Style(
        name=_pick(rng, NAMES),
        greeting=_pick(rng, GREETINGS),
        closing=_pick(rng, CLOSINGS),
        ending=_pick(rng, ENDINGS),
        lower_case=rng.random() < 0.15,
        city=_pick(rng, CITIES),
        products=tuple(_pick(rng, PRODUCTS) for _ in range(2)),
        topics=tuple(_pick(rng, tuple(TOPICS)) for _ in range(2)),
        habit=0.6 + 0.4 * rng.random(),
    )


class _Slots(dict[str, str]):
    """Fills a template: the user's own values stay the same, the rest is drawn each time."""

    def __init__(self, rng: Random, own: dict[str, str]):
        super().__init__(own)
        self.rng = rng

    def __missing__(self, slot: str) -> str:
        return _pick(self.rng, WORDS[slot])


def _write(rng: Random, style: Style, secrets: Secrets) -> str:
    """One message: greeting, what it is about, perhaps a detail and a number to call, closing."""

    def usual(habit: str, others: Sequence[str]) -> str:
        """The style's own word as often as its habit says, else any of the others."""
        return habit if rng.random() < style.habit else _pick(rng, others)

    topic = usual(_pick(rng, style.topics), tuple(TOPICS))
    own = {
        "name": style.name,
        "city": style.city,
        "product": usual(_pick(rng, style.products), PRODUCTS),
        "order": secrets.order_id,
        "phone": secrets.phone,
    }
    opening, asking = TOPICS[topic]
    parts = [usual(style.greeting, GREETINGS), _pick(rng, opening)]
    if rng.random() < 0.4:
        parts.append(_pick(rng, asking))
    if rng.random() < 0.15:
        parts.append(_pick(rng, CONTACTS))
    parts.append(usual(style.closing, CLOSINGS))
    text = " ".join(part for part in parts if part).format_map(_Slots(rng, own))
    text = text[0].upper() + text[1:]
    if style.lower_case:
        text = text.lower().replace(secrets.order_id.lower(), secrets.order_id)
    ending = usual(style.ending, ENDINGS)
    return text[:-1] + ending if text.endswith((".", "!")) else text


NAMES = (
    "Amira", "Anton", "Beatriz", "Bruno", "Carla", "Chidi", "Daniela", "Dmitri", "Elif", "Emeka",
    "Fatima", "Felix", "Greta", "Hana", "Henrik", "Ines", "Ivan", "Jasmin", "Jonas", "Kamal",
    "Katya", "Leila", "Lorenzo", "Lucia", "Malik", "Marta", "Mei", "Mikael", "Nadia", "Nils",
    "Olga", "Omar", "Paula", "Pedro", "Priya", "Rafael", "Rosa", "Samir", "Sofia", "Stefan",
    "Tariq", "Teresa", "Viktor", "Wanda", "Yara", "Yusuf", "Zainab", "Zoltan",
)  # fmt: skip
CITIES = (
    "Aldermoor", "Brackwater", "Castleby", "Dunhaven", "Eastmere", "Fernhollow", "Greyport",
    "Highfield", "Ironbridge", "Kingsford", "Larkhill", "Marlow", "Northgate", "Oakham",
    "Pinecrest", "Queensbury", "Redcliff", "Stonewell", "Thornbury", "Westbrook",
)  # fmt: skip
PRODUCTS = (
    "coffee maker", "kettle", "toaster", "blender", "rice cooker", "desk lamp", "floor lamp",
    "office chair", "bookshelf", "standing desk", "mattress", "pillow", "winter jacket",
    "rain coat", "running shoes", "hiking boots", "wool sweater", "backpack", "suitcase",
    "headphones", "keyboard", "webcam", "phone case", "charger", "tablet", "smart watch",
    "camera bag", "board game", "puzzle", "yoga mat", "bike helmet", "tent", "sleeping bag",
    "garden hose", "tool box", "vacuum cleaner", "air fryer", "water bottle", "frying pan",
    "knife set",
)  # fmt: skip
GREETINGS = (
    "Hi,", "Hello,", "Hey,", "Hi there,", "Hello support team,", "Dear customer service,",
    "Good morning,", "Good evening,", "",
)  # fmt: skip
CLOSINGS = (
    "Thanks.", "Thank you, {name}.", "Thanks in advance.", "Best regards, {name}.",
    "Kind regards, {name}.", "Many thanks, {name}.", "Cheers, {name}.", "",
)  # fmt: skip
ENDINGS = (".", ".", ".", "!", "!!", "...", "")
CONTACTS = (
    "My phone number is {phone}.", "Please call me back at {phone}.",
    "You can reach me on {phone}.", "Text me at {phone} if you need anything else.",
)  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "days": ("two days", "three days", "five days", "a week", "ten days", "two weeks"),
    "carrier": ("SwiftPost", "ParcelHub", "RoadRunner", "BlueVan"),
    "colour": ("black", "white", "grey", "navy blue", "dark green", "red"),
    "size": ("small", "medium", "large", "extra large"),
    "price": ("$19.99", "$24.50", "$39.90", "$49.99", "$79.00", "$120.00"),
    "card": ("credit card", "debit card", "gift card", "bank account"),
    "fault": (
        "does not turn on", "makes a loud noise", "has a crack in it", "leaks at the bottom",
        "stopped working", "has a scratch on the side", "smells burnt",
    ),
    "code": ("WELCOME10", "SPRING15", "FREESHIP", "SAVE20"),
}  # fmt: skip
# Of each topic: how a message opens, and what it may ask for next.
TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "late": ((
        "my order {order} has not arrived yet.",
        "I ordered a {product} {days} ago and it is still not here.",
        "the tracking page says my {product} was delivered on {day} but I never got it.",
        "{carrier} keeps changing the delivery date of my {product}.",
    ), (
        "Could you check where the package is?",
        "When will it be delivered?",
        "Please send me an updated tracking link.",
    )),
    "refund": ((
        "I would like a refund for order {order}.",
        "I returned the {product} {days} ago and have not received my refund.",
        "the refund of {price} has not shown up on my {card}.",
    ), (
        "How long does a refund usually take?",
        "Please confirm that the return was received.",
        "I still have the receipt.",
    )),
    "broken": ((
        "the {product} I received {fault}.",
        "my new {product} {fault} after only {days}.",
        "the {product} from order {order} {fault}.",
    ), (
        "Can I get a replacement?",
        "I can send photos of the damage.",
        "Is this covered by the warranty?",
    )),
    "wrong": ((
        "I received the wrong item, I ordered a {colour} {product}.",
        "you sent me a {colour} {product} instead of a {colour} one.",
        "order {order} is missing the {product}.",
    ), (
        "How do I send it back?",
        "Please ship the right one as soon as possible.",
        "Do I need to pay for the return shipping?",
    )),
    "address": ((
        "I moved to {city} and need to change the shipping address of order {order}.",
        "can you deliver my {product} to the pickup point in {city} instead?",
        "please update the delivery address on my account to {city}.",
    ), (
        "The package has not shipped yet.",
        "I will not be home on {day}.",
        "Please let me know if that is possible.",
    )),
    "cancel": ((
        "please cancel my order {order}.",
        "I ordered the {product} twice by mistake and want to cancel one.",
        "I want to cancel the {product} because delivery takes {days}.",
    ), ("I was already charged {price}.", "Please confirm the cancellation by email.")),
    "invoice": ((
        "I need an invoice for order {order}.",
        "I was charged {price} twice for the same {product}.",
        "my {card} was declined when I tried to buy the {product}.",
    ), ("Can you send it to my email address?", "Please fix this as soon as possible.")),
    "discount": ((
        "the discount code {code} does not work on the {product}.",
        "I forgot to use the code {code} on order {order}.",
        "is the {product} going to be on sale on {day}?",
    ), ("Can you apply it to my order?", "The checkout page says the code has expired.")),
    "stock": ((
        "when will the {colour} {product} be back in stock?",
        "do you have the {product} in size {size}?",
        "I would like to exchange my {product} for a {size} one.",
    ), ("I can also pick it up at the store in {city}.", "Please notify me when it is available.")),
    "account": ((
        "I cannot log in to my account to track my {product}.",
        "the password reset email never arrives.",
        "please delete my account after order {order} is delivered.",
    ), ("I already tried a different browser.", "It worked fine on {day}.")),
}  # fmt: skip
