from feddp.simulations.run.html import html_table


def test_cells_are_escaped_and_the_first_names_its_row() -> None:
    text = html_table([["<b>", "1 & 2"]], head=("", "<i>"))
    assert text == (
        "<table><tr><th></th><th>&lt;i&gt;</th></tr>"
        "<tr><th>&lt;b&gt;</th><td>1 &amp; 2</td></tr></table>"
    )
