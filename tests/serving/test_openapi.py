import asyncio
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from serving import docs, openapi
from serving.app import ANONYMOUS_USERS, METRICS, QUARANTINE, USER_METHODS, USERS, App
from serving.collect.document import SETTINGS_PATH
from serving.collect.routes import METHODS, SNIPPET
from serving.console import files as console
from serving.console.playbook import PATH as PLAYBOOK
from serving.segments.channels.running import PATH as SEGMENTS
from serving.segments.channels.running import STREAM


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (v for k, v in part.items() if k == "$ref")
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def fits(value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether a value fits a JSON Schema; knows the keywords that msgspec writes, and no other."""
    for keyword, rule in schema.items():
        match keyword:
            case "$ref":
                ok = fits(value, whole["components"]["schemas"][rule.rsplit("/", 1)[-1]], whole)
            case "anyOf":
                ok = any(fits(value, option, whole) for option in rule)
            case "type":
                ok = isinstance(value, TYPES[rule]) and (rule == "boolean" or not isinstance(value, bool))
            case "properties":
                ok = all(fits(value[name], part, whole) for name, part in rule.items() if name in value)
            case "required":
                ok = set(rule) <= set(value)
            case "additionalProperties":
                ok = rule is not False or set(value) <= set(schema["properties"])
            case "items":
                ok = all(fits(item, rule, whole) for item in value)
            case "minLength" | "minItems" | "minProperties":
                ok = len(value) >= rule
            case "maxLength" | "maxItems" | "maxProperties":
                ok = len(value) <= rule
            case "minimum":
                ok = value >= rule
            case "pattern":
                ok = re.search(rule, value) is not None
            case "enum":
                ok = value in rule
            case "title" | "description" | "examples" | "default":
                ok = True
            case other:
                raise AssertionError(f"unknown keyword {other}")
        if not ok:
            return False
    return True


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def valid(value: Any, schema: str, document: dict[str, Any]) -> bool:
    return fits(value, document["components"]["schemas"][schema], document)


def test_it_is_an_openapi_document(document: dict[str, Any]) -> None:
    from fastapi.openapi.models import OpenAPI

    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1.")
    names = set(document["components"]["schemas"])
    assert {r.removeprefix("#/components/schemas/") for r in references(document)} == names
    operations = [op for item in document["paths"].values() for op in item.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    for path in document["paths"]:
        assert re.fullmatch(r"/[\w./{}-]*", path)


def test_every_route_is_in_it(document: dict[str, Any], make_app: Callable[..., App]) -> None:
    app = make_app()
    routes = {path: {"post"} for path in app._decides} | {path: {"get"} for path in app._pages}
    routes |= {path: set(methods.lower().split(", ")) for path, methods in METHODS.items()}
    routes |= {SETTINGS_PATH: {"get"}, SNIPPET: {"get"}, QUARANTINE: {"get"}, SEGMENTS: {"get"}, STREAM: {"get"}}
    for at in (USERS, ANONYMOUS_USERS):
        routes |= {f"{at}{{id}}{what}": {m.lower() for m in methods} for what, methods in USER_METHODS.items()}
    routes |= {PLAYBOOK: {"get"}, METRICS: {"get"}} | {
        path: {"get"} for path in (*console.PAGES, f"{console.PATH}/{{file}}")
    }
    bento_only = {"/schema.json": {"get"}}
    assert {path: set(item) for path, item in document["paths"].items()} == routes | bento_only
    assert all(app._collector.methods(path) for path in (*METHODS, SNIPPET, SETTINGS_PATH))


def test_answers_and_refusals_are_as_described(
    document: dict[str, Any], make_app: Callable[..., App], fakes: SimpleNamespace
) -> None:
    cases = [
        ("/v1/decide", {"userId": "slow", "explain": True}, "Decision"),
        ("/v1/decide", {"userId": "nobody"}, "Decision"),
        ("/v1/decide/batch", {"userIds": ["slow", "done", "fast"]}, "BatchResponse"),
        ("/v1/decide", {"userId": ""}, "Problem"),
        ("/v1/decide", {}, "Problem"),
    ]
    app = make_app()

    async def run() -> None:
        async with fakes.client(app) as http:
            for path, body, schema in cases:
                response = await http.post(path, json=body)
                assert valid(response.json(), schema, document)
                described = document["paths"][path]["post"]["responses"][str(response.status_code)]
                assert schema in described["content"]["application/json"]["schema"]["$ref"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        ({"userId": "u"}, True),
        ({"userId": "u", "anonymousId": "d", "explain": True}, True),
        ({"userId": ""}, False),
        ({"userId": "u", "other": 1}, False),
        ({"userId": "u", "context": {}}, False),
        ({"anonymousId": "d"}, True),
        ({"explain": True}, False),
    ],
)
def test_the_schema_refuses_what_the_service_refuses(
    document: dict[str, Any], make_app: Callable[..., App], fakes: SimpleNamespace, body: dict[str, Any], accepted: bool
) -> None:
    assert valid(body, "DecideRequest", document) is accepted

    async def run() -> int:
        async with fakes.client(make_app()) as http:
            return (await http.post("/v1/decide", json=body)).status_code

    assert (asyncio.run(run()) == 200) is accepted


def test_the_page_shows_every_route_and_schema_and_loads_nothing() -> None:
    page = docs.page()
    for path in openapi.document()["paths"]:
        assert f" {path}</code>" in page
    for schema in openapi.document()["components"]["schemas"]:
        assert f"<h3 id={schema}>" in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
