"""The frame of a page: escaped, whole, and without anything from elsewhere."""

import pytest

from feddp.simulations.report.page import (
    bullets,
    folded,
    heading,
    page,
    paragraph,
    picture,
    promise,
    table,
    verbatim,
)


@pytest.mark.parametrize(
    "body",
    [
        heading("<b>"),
        paragraph("<b>"),
        bullets(["<b>"]),
        promise(["<b>"]),
        picture("<svg></svg>", "<b>"),
        table(["<b>"], [["<b>"]]),
        folded("<b>", "<b>"),
        verbatim("<b>"),
        page("<b>", "<b>", []),
    ],
)
def test_text_is_escaped(body: str) -> None:
    assert "&lt;b&gt;" in body
    assert "<b>" not in body


def test_a_picture_is_inlined_as_it_is() -> None:
    found = picture("<svg><g/></svg>", "loss")
    assert found == "<figure><svg><g/></svg><figcaption>loss</figcaption></figure>"


def test_a_broken_promise_looks_like_one() -> None:
    assert 'class="promise bad"' in promise(["x"], is_broken=True)
    assert 'class="promise"' in promise(["x"])


def test_a_table_has_a_cell_for_every_value_and_a_wide_one_goes_beyond_the_text() -> None:
    found = table(["", "loss"], [["uls", "3.5"], ["els", "3.4"]])
    assert found.count("<tr>") == 3
    assert found.count("<td>") == 4
    assert 'class="scroll"' in found
    assert 'class="scroll wide"' in table([""], [], is_wide=True)


def test_a_page_holds_its_parts_in_order_and_asks_nothing_of_a_network() -> None:
    found = page("Run x", "A run.", [paragraph("first"), paragraph("second")])
    assert found.startswith("<!doctype html>")
    order = [found.index(part) for part in ("<h1>Run x</h1>", "<p>first</p>", "<p>second</p>")]
    assert order == sorted(order)
    assert not any(word in found for word in ("http", "src=", "<script", "@import", "<link"))
