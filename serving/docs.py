"""The OpenAPI document as a page for people: no scripts, nothing loaded from anywhere."""

from functools import lru_cache
from html import escape

from serving.openapi import Json, document

STYLE = """:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{overflow:auto;padding:.8rem;border:1px solid #8884;border-radius:.4rem}
table{border-collapse:collapse;width:100%;display:block;overflow-x:auto}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8884}
h2{margin-top:2.2rem}"""

EXAMPLE = """curl -s localhost:3000/v1/decide -H 'Authorization: Bearer KEY' \\
     -H 'Content-Type: application/json' -d '{"userId": "u-1842"}'"""

PAGE = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Firstmile API</title><style>{style}</style><h1>Firstmile API</h1>{about}<pre>{example}</pre>
<p>For programs: <a href=openapi.json>openapi.json</a>. For people: <a href=console>console</a></p>
<h2>Routes</h2><table>{routes}</table><h2>Schemas</h2>{schemas}</html>"""


@lru_cache
def page() -> str:
    """The document as one HTML page."""
    doc = document()
    return PAGE.format(
        style=STYLE,
        about="".join(f"<p>{escape(part)}</p>" for part in doc["info"]["description"].split("\n\n")),
        example=escape(EXAMPLE),
        routes="".join(_route(path, method, op) for path, item in doc["paths"].items() for method, op in item.items()),
        schemas="".join(_schema(name, schema) for name, schema in doc["components"]["schemas"].items()),
    )


def _route(path: str, method: str, op: Json) -> str:
    answers = "<br>".join(f"{status} {escape(r['description'])}" for status, r in op["responses"].items())
    return f"<tr><td><code>{method.upper()} {escape(path)}</code><td>{escape(op['summary'])}<td>{answers}"


def _schema(name: str, schema: Json) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{'' if field in schema.get('required', ()) else ' (optional)'}"
        f"<td><code>{escape(_type(spec))}</code><td>{escape(spec.get('description', ''))}"
        for field, spec in schema.get("properties", {}).items()
    )
    return f"<h3 id={name}>{name}</h3><p>{escape(schema.get('description', ''))}</p><table>{rows}</table>"


def _type(spec: Json) -> str:
    if "$ref" in spec:
        return str(spec["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in spec:
        return " or ".join(_type(s) for s in spec["anyOf"])
    kind = spec.get("type", "any")
    if kind == "array":
        return f"list of {_type(spec.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
