"""The words and grammar of the demo's public text; a word may itself contain slots."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(","))


def _verb_forms() -> dict[str, tuple[str, ...]]:
    """Base form, -s, -ing, past and participle of every verb, under the slots that ask for them."""
    verbs = [tuple(verb.split()) for verb in _words(VERBS)]
    triples = [verb if len(verb) == 3 else _regular(verb[0]) for verb in verbs]
    return {
        "do": tuple(base for base, _, _ in triples),
        "does": tuple(_third_person(base) for base, _, _ in triples),
        "doing": tuple(
            (base[:-1] if base.endswith("e") else base) + "ing" for base, _, _ in triples
        ),
        "did_any": tuple(past for _, past, _ in triples),
        "done": tuple(participle for _, _, participle in triples),
    }


def _regular(base: str) -> tuple[str, str, str]:
    past = base + "d" if base.endswith("e") else base + "ed"
    if base.endswith("y") and base[-2] not in "aeou":
        past = base[:-1] + "ied"
    return base, past, past


def _third_person(base: str) -> str:
    if base.endswith("y") and base[-2] not in "aeou":
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("sh", "ch", "ss", "x")) else "s")


WORDS: dict[str, tuple[str, ...]] = {
    "name": _words(
        """Alice, Ben, Clara, David, Emma, Frank, Grace, Henry, Irene, Jack, Kate, Leo, Maria,
        Noah, Oscar, Peter, Rita, Simon, Tom, Vera, Walter, Anna, Paul, Lisa, Max, Julia, Sam,
        Helen, {made}, {made}, {made}, {made}, {made}, {made}, {made}, {made}, {made}, {made},
        {made}"""
    ),
    "friend": _words(
        """her brother, his sister, the old man, a neighbour, the teacher, the doctor, a young
        woman, the farmer, their father, my mother, the driver, a student, the baker, the
        captain"""
    ),
    "town": _words(
        """Millbrook, Ashford, Riverton, Lakeside, Greenfield, Harbour Bay, Stoneham, Willow Creek,
        the capital, the old town, the village, Summerhill, Newport, Easton, Clifton, {made},
        {made}{town_end}, {made}{town_end}, {made}{town_end}"""
    ),
    "made": _words("{start}{end}, {start}{end}, {start}{end}, {start}{middle}{end}"),
    "start": _words(
        """A, Al, An, Be, Bra, Bru, Ca, Che, Chi, Da, Di, Dra, E, El, Em, Fa, Fe, Fi, Ga, Gre, Ha,
        He, I, In, Ja, Jo, Ka, Ki, Kri, La, Le, Lo, Lu, Ma, Me, Mi, Mo, Na, Ni, O, Ol, Pa, Pe,
        Pri, Ra, Ro, Sa, Se, Sha, So, Ste, Ta, Te, Tho, U, Va, Vi, Wa, Wi, Ya, Yu, Za, Zo"""
    ),
    "middle": _words(
        """ba, be, da, di, fa, ga, ja, ka, la, li, ma, mi, na, ni, ra, ri, ro, sa, ti, vi"""
    ),
    "end": _words(
        """n, na, nus, ra, ro, rik, la, lo, lia, ta, to, tor, da, do, mar, mil, fer, sha, ya, s,
        than, ne, nes, ka, ko, bo, beth, ndra, rne, ver, wick, zan, phie, que, ssa, ck, ng, lle,
        ph"""
    ),
    "town_end": _words(
        """ton, ford, ham, bury, wick, field, port, haven, mere, well, by, ley, dale"""
    ),
    "animal": _words(
        """fox, owl, bear, rabbit, deer, wolf, otter, hawk, turtle, salmon, bee, horse, cat, dog,
        sheep, duck, frog, mouse, whale, seal, goat, crow, hedgehog, squirrel"""
    ),
    "product": _words(
        """kettle, lamp, chair, table, jacket, coat, bag, shoe, bicycle, tent, camera, radio,
        clock, pillow, blanket, knife, pan, bottle, keyboard, tablet, phone, watch, mat, shelf,
        desk, sweater, helmet, hose, vacuum cleaner, coffee maker, suitcase, game, puzzle,
        mattress"""
    ),
    "dish": _words(
        """soup, bread, rice, stew, cake, pasta, salad, pie, pancakes, omelette, curry, porridge,
        cookies, roast chicken, dumplings, noodles"""
    ),
    "food": _words(
        """onions, carrots, tomatoes, butter, flour, sugar, salt, pepper, garlic, milk, eggs,
        cheese, beans, potatoes, lemon juice, olive oil, honey, apples, mushrooms, herbs"""
    ),
    "prey": _words(
        """insects, berries, small fish, leaves, roots, seeds, grass, mice, worms, nuts, fruit,
        eggs"""
    ),
    "team": _words(
        """the Lions, the Rovers, the Harbour Club, the Blues, the visitors, the champions, the
        Eagles, the home team, the Wanderers, the United side"""
    ),
    "subject": _words(
        """history, music, chemistry, gravity, the weather, electricity, the moon, the ocean,
        language, trade, farming, painting, the human heart, light, sleep, money, glass, paper,
        iron, memory"""
    ),
    "place": _words(
        """in the garden, by the river, at the market, on the hill, near the station, in the
        kitchen, under the bridge, at the library, behind the house, in the forest, on the
        beach, in {town}, at school, across the street, on the train, in the park, at the office"""
    ),
    "thing": _words(
        """letter, book, basket, {product}, key, map, photograph, boat, ladder, song, story,
        picture, gift, box, candle, hat, newspaper, ticket, coin, umbrella, flower, stone, ball,
        violin"""
    ),
    "adj": _words(
        """old, new, small, large, quiet, bright, heavy, simple, strange, beautiful, wooden,
        broken, warm, cold, empty, narrow, gentle, famous, clean, dark, long, tall, soft,
        strong, good"""
    ),
    "colour": _words(
        """red, blue, green, yellow, white, black, brown, grey, orange, dark blue, pink"""
    ),
    "did": _words(
        """found, bought, carried, lost, painted, opened, sold, forgot, borrowed, fixed, wanted,
        saw, took, kept, made, liked, held, dropped, cleaned, remembered, received, returned,
        needed"""
    ),
    "went": _words(
        """walked, waited, slept, sat, worked, sang, ran, stood, lived, talked, laughed, rested,
        played, stayed, read, looked around, stopped, arrived"""
    ),
    "when": _words(
        """yesterday, last week, in the morning, after lunch, on {day}, every day, at night, in
        {year}, before dinner, in the spring, two days ago, an hour later, for {count} hours,
        that evening"""
    ),
    "because": _words(
        """it was raining, the road was closed, nobody was home, the door was open, the train was
        late, it was too cold, the shop was closed, the day was long, everyone was hungry, it
        was free, there was no time, the music was loud, the light was on, the work was done"""
    ),
    "day": _words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "month": _words("January, March, April, June, July, September, October, December"),
    "year": _words(
        """1848, 1872, 1901, 1923, 1936, 1950, 1967, 1979, 1988, 1995, 2004, 2011, 2018"""
    ),
    "count": _words("two, three, four, five, six, seven, eight, ten, twelve, twenty"),
    "digits": _words(
        """2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 45, 60, 75, 90, 100, 150, 200"""
    ),
    "material": _words(
        """wood, steel, cotton, wool, glass, leather, plastic, paper, stone, linen"""
    ),
    "weather": _words(
        """rain, snow, wind, fog, sunshine, clouds, storms, frost, light showers, heat"""
    ),
    "says": _words(
        """said, asked, wrote, believed, explained, thought, hoped, knew, answered, told us"""
    ),
    "feels": _words(
        """happy, tired, angry, proud, hungry, afraid, busy, sure, sorry, glad, late, sick"""
    ),
    "builds": _words(
        """school, bridge, hospital, road, museum, factory, library, station, park, theatre"""
    ),
    "official": _words(
        """mayor, city council, government, company, university, police, bank, court"""
    ),
    "part": _words("legs, ears, eyes, feathers, teeth, tail, wings, coat, voice, nose"),
    "cooks": _words(
        """mix, chop, heat, add, stir, boil, wash, slice, fry, bake, melt, pour, cover"""
    ),
}

VERBS = """
    find found found, buy bought bought, carry, lose lost lost, paint, open, sell sold sold,
    keep kept kept, make made made, take took taken, give gave given, see saw seen, know
    knew known, bring brought brought, send sent sent, leave left left, read read read,
    write wrote written, build built built, break broke broken, hear heard heard, hold held
    held, teach taught taught, wear wore worn, pay paid paid, choose chose chosen, eat ate
    eaten, clean, move, close, change, check, order, deliver, return, need, want, use,
    watch, visit, follow, carry, study, start, finish, collect, share, save, try, show,
    explain, describe, cover, fill, cook, paint, pick, pull, push, wash, help, call, answer,
    ask, love, join, miss, count, measure, test, order, update, cancel, exchange, apply,
    confirm, receive, expect, remember, offer, borrow, repair, replace, record, notice,
    discover, produce, improve, protect, print, track, design, ship, charge, exchange,
    replace, refund, arrive, expire, receive, notify, decline, fix, delete, reset, text,
    turn, leak, get got got, set set set
"""

WORDS |= _verb_forms()
WORDS |= {
    "noun": _words(
        """house, door, window, road, car, train, boat, table, chair, letter, book, story, word,
        question, answer, name, number, phone, page, picture, song, game, team, school, class,
        teacher, student, doctor, friend, family, child, mother, father, sister, brother, man,
        woman, king, queen, farmer, worker, player, writer, singer, town, city, country, river,
        mountain, island, garden, tree, flower, field, forest, lake, sea, beach, sky, star, sun,
        moon, storm, summer, winter, day, night, week, month, year, hour, minute, morning,
        evening, meal, dinner, breakfast, cake, cup, plate, bottle, bag, box, basket, coat,
        shoe, hat, dress, ring, watch, clock, lamp, bed, wall, floor, roof, kitchen, room,
        office, shop, store, market, bank, church, museum, library, hospital, station, airport,
        hotel, street, bridge, map, ticket, price, card, bill, coin, job, plan, idea, reason,
        problem, change, mistake, promise, secret, dream, memory, lesson, rule, law, war, peace,
        vote, party, news, paper, computer, screen, machine, engine, tool, wheel, key, knife,
        rope, stone, glass, metal, wood, gold, oil, fire, smoke, ice, rain, snow, wind, bird,
        fish, horse, dog, cat, cow, egg, apple, bean, seed, leaf, root, animal, body, hand,
        head, eye, ear, arm, leg, heart, voice, face, hair, order, package, delivery, address,
        account, email, message, code, photo, size, colour, date, list, report, film, camera,
        radio, piano, guitar, ball, {goods}, {goods}, {goods}, {goods}, {goods}, {goods},
        {product}, {animal}, {dish}, {serial}, email address, front door, city centre, birthday,
        holiday"""
    ),
    "serial": _words(
        """model {letter}{digits}, room {digits}, flight {letter}{letter}-{digits}, number
        {digits}, version {digits}.{digits}, page {digits}, bus {letter}-{digits}, street number
        {digits}"""
    ),
    "letter": _words("A, B, C, D, E, F, G, H, K, L, M, N, O, P, R, S, T, V, W, X"),
    "quality": _words(
        """{adj}, {adj}, {adj}, {colour}, difficult, easy, expensive, cheap, important, possible,
        available, damaged, missing, delivered late, out of stock, ready, right, wrong, late,
        early, free, full, different, same, big, little, young, fast, slow, hard, wet, dry,
        deep, high, low, rich, poor, safe, wild, sweet, bitter, loud, rare, common, modern,
        ancient, local, public, private, national, white, light"""
    ),
    "goods": _words(
        """refund, receipt, warranty, invoice, discount, password, browser, item, parcel, payment,
        tracking page, link, credit card, debit card, gift card, bank account, replacement,
        service, customer, support group, warehouse, shipping cost, pickup point, damage, crack,
        scratch, noise, sale, stock, size, carrier, checkout, website, confirmation,
        cancellation, backpack, kettle, toaster, blender, headphones, charger, jacket, boots,
        mattress, tool box, bike, yoga class, winter coat, rice cooker, bookshelf, hiking trip,
        sleeping bag, smart watch"""
    ),
    "np": _words(
        """the {noun}, the {noun}, the {noun}, a {noun}, a {quality} {noun}, the {quality} {noun},
        my {noun}, my {quality} {noun}, your {noun}, his {noun}, her {noun}, our {noun}, their
        {noun}, this {noun}, that {noun}, another {noun}, every {noun}, no {noun}, it, them, the
        {noun} {pp}, the {noun} of the {noun}, a {noun} with a {quality} {noun}, {name},
        {friend}, one of the {noun}s, {count} {noun}s, the first {noun}, the last {noun}, the
        {noun} that {name} {did_any}, the {noun} and the {noun}, a pair of {noun}s"""
    ),
    "pp": _words(
        """{place}, {place}, in the {noun}, on the {noun}, with a {noun}, from the {noun}, to the
        {noun}, at the {noun}, for the {noun}, about the {noun}, without a {noun}, after the
        {noun}, before the {noun}, near the {noun}, under the {noun}, to {town}, from {town}, in
        {month}"""
    ),
    "i": _words("I, I, you, we, they, {name} and {friend}, the {noun}s, some people"),
    "he": _words(
        """he, she, it, {name}, {friend}, the {noun}, the {quality} {noun}, nobody, everyone"""
    ),
    "verb": _words(
        """{did_any} {np}, {did_any} {np} {when}, {did_any} {np} {pp}, will {do} {np}, can {do}
        {np}, could not {do} {np}, did not {do} {np}, would {do} {np}, should {do} {np} {when},
        wanted to {do} {np}, had to {do} {np}, had already {done} {np}, never {did_any} {np},
        may {do} {np} {pp}, went to {town} to {do} {np}, tried to {do} {np}, forgot to {do} {np}"""
    ),
    "clause": _words(
        """{i} {verb}, {he} {verb}, {i} have {done} {np}, {he} has {done} {np}, {i} {do} {np}
        {when}, {he} {does} {np}, {he} is {quality}, {i} are not {quality}, {he} was {doing}
        {np}, {i} were {doing} {np} {pp}, {he} was {done} {pp}, {he} has not been {done} yet,
        there is a {noun} {pp}, there was no {noun} {pp}, it is {quality} to {do} {np}, {he} is
        still {quality}, {he} does not {do} {np}, {i} do not {do} {np}, {he} would like to {do}
        {np}, {i} need to {do} {np}, I am {quality}, I am {doing} {np}"""
    ),
}
