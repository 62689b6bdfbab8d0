"""The elements of a report: one HTML file with its style, without scripts or network access."""

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #22262b; --soft: #5d6570;
  --line: #d9dde3; --panel: #f6f7f9; --accent: #3b7dd8; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e7eb; --soft: #9aa3ae;
  --line: #343a42; --panel: #1e2126; --accent: #7fb0f5; --warn: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
p { margin: .5rem 0; } .lead, figcaption, .note { color: var(--soft); }
.promise { background: var(--panel); border-left: 3px solid var(--accent); border-radius: 4px;
  padding: .9rem 1.1rem; margin: 1.4rem 0; }
.promise.bad { border-color: var(--warn); }
figure { margin: 1.2rem 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; margin-top: .3rem; }
.scroll { overflow-x: auto; }
.wide { --room: min(100vw - 3rem, 78rem); width: var(--room);
  margin-left: calc(50% - var(--room) / 2); }
table { border-collapse: collapse; width: 100%; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
th:first-child, td:first-child { text-align: left; }
pre { background: var(--panel); border-radius: 4px; padding: .8rem 1rem; white-space: pre-wrap;
  font: .82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.wide table { font-size: .8rem; } .wide th, .wide td { padding: .35rem .4rem; }
summary { cursor: pointer; color: var(--soft); }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --panel: #f4f4f4; }
  main { max-width: none; padding: 0; } .wide { width: auto; margin: 0; }
  figure, table, .promise { break-inside: avoid; }
  pre { white-space: pre-wrap; } body { font-size: 11pt; } }
"""


def page(title: str, lead: str, parts: Sequence[str]) -> str:
    """A whole HTML document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """The heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """A list with one entry per line."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def promise(lines: Sequence[str], *, is_broken: bool = False) -> str:
    """The promise, set apart."""
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="promise{" bad" if is_broken else ""}">{body}</div>'


def picture(svg: str, caption: str) -> str:
    """An inlined picture with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, is_wide: bool = False) -> str:
    """A table: numbers right-aligned, the first column left; a wide one exceeds the text width."""
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    kind = "scroll wide" if is_wide else "scroll"
    return f'<div class="{kind}"><table><tr>{titles}</tr>\n{body}</table></div>'


def folded(title: str, text: str) -> str:
    """Verbatim text that opens on a click."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text.strip())}</pre></details>"


def verbatim(text: str) -> str:
    """A command."""
    return f"<pre>{escape(text)}</pre>"
