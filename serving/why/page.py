"""The person-facing answer as a small page: no script, nothing from elsewhere."""

from collections.abc import Sequence
from html import escape

from serving.why.answers import Element, Why

STYLE = """body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;
background:#fff}h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}dt{font-weight:600}dd{margin:0 0 .75rem}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}}"""
POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page's Content-Security-Policy."""


def page(why: Why) -> str:
    """HTML 5, readable on a phone and by a screen reader."""
    parts = [
        _section("Why", _paragraphs(why.sentences)),
        _section("What you were shown", _elements(why.shown)),
        _section("What was left out", _elements(why.not_shown)),
        _section(
            f"What was known and used{f', as of {_day(why.data_as_of)}' if why.data_as_of else ''}", _list(why.data)
        ),
        _section("Your choices", _list(why.your_choices)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>Why you see what you see</title><style>{STYLE}</style>'
        f"</head><body><main><h1>Why you see what you see</h1>{_when(why.at)}{''.join(parts)}</main></body></html>\n"
    )


def _when(at: str | None) -> str:
    return f'<p>Decided at <time datetime="{escape(at)}">{escape(_day(at))}</time>.</p>' if at else ""


def _day(at: str) -> str:
    """`2026-03-01 09:30 UTC`."""
    return f"{at[:10]} {at[11:16]} UTC"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f"<p>{escape(t)}</p>" for t in texts)


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(t)}</li>' for t in texts)}</ul>" if texts else ""


def _elements(elements: Sequence[Element]) -> str:
    if not elements:
        return ""
    return f"<dl>{''.join(f'<dt>{escape(e.title)}</dt><dd>{escape(e.why)}</dd>' for e in elements)}</dl>"
