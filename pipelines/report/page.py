"""An HTML page of sections: text, tables, charts, pictures; one file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#27313a;max-width:1180px;margin:24px auto;
padding:0 16px;background:#fff}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px;border-bottom:1px solid
#dfe5ea;padding-bottom:4px}p{margin:6px 0;max-width:80ch}.note{color:#5a6874;font-size:13px}
table{border-collapse:collapse;font-size:13px;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{padding:3px 9px;border-bottom:1px solid #dfe5ea;text-align:right;white-space:nowrap}
th:first-child,td:first-child,td.text,th.text{text-align:left}td.text{white-space:normal}
thead th{background:#f3f6f8;position:sticky;top:0}.scroll{overflow-x:auto}
.row{display:flex;flex-wrap:wrap;gap:18px}figure{margin:0}figcaption{font-size:13px}
svg{font:12px system-ui,sans-serif;fill:#27313a;max-width:100%;height:auto}
svg .tick{font-size:11px;fill:#5a6874}img{max-width:100%;image-rendering:pixelated}
.key span{display:inline-block;margin-right:14px}.key i{display:inline-block;width:14px;height:4px;
margin-right:5px;vertical-align:middle}
"""


def page(title: str, sections: Iterable[str]) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; nothing if there is nothing."""
    content = [part for part in parts if part]
    if not content:
        return ""
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(content) + "</section>"


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph; a ``note`` is smaller."""
    opening = '<p class="note">' if note else "<p>"
    return f"{opening}{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """A table; the columns ``text`` are aligned to the left."""

    def cells(values: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' * (n in text) for n in range(len(values))]
        pairs = zip(kinds, values, strict=True)
        return "".join(f"<{tag}{kind}>{escape(v)}</{tag}>" for kind, v in pairs)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>\n" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(content: str, caption: str = "", width: int = 360) -> str:
    """A chart or picture with a caption, ``width`` pixels wide at most."""
    return (
        f'<figure style="max-width:{width}px">{content}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def row(parts: Iterable[str]) -> str:
    """Figures beside each other, as far as there is room."""
    content = "".join(parts)
    return f'<div class="row">{content}</div>' if content else ""


def picture(path: Path | None, told: str, width: int = 360) -> str:
    """The PNG file ``path`` inside the page; a line if it is missing."""
    if path is None or not path.is_file():
        return paragraph(f"{told}: no picture", note=True)
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(told)}" width="{width}">'


def key(entries: Iterable[tuple[str, str]]) -> str:
    """What the colours (colour, name) of a chart mean."""
    spans = (f'<span><i style="background:{c}"></i>{escape(n)}</span>' for c, n in entries)
    return f'<p class="key note">{"".join(spans)}</p>'
