"""Tables for notebooks."""

from collections.abc import Sequence
from html import escape


def html_table(rows: Sequence[Sequence[str]], *, head: Sequence[str] = ()) -> str:
    """An HTML table of escaped texts; the first cell of a row is its header.

    >>> html_table([["loss", "1 < 2"]])
    '<table><tr><th>loss</th><td>1 &lt; 2</td></tr></table>'
    """
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"
