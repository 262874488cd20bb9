"""The running service against its own OpenAPI document: schemathesis makes up requests and looks at the answers."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from feature_repo.settings import Settings
from serving import openapi, wiring
from serving.console.playbook import Declared
from serving.segments.channels.running import STREAM
from tests.serving.collect.conftest import serving
from tests.serving.test_users import Service

SCHEMA = schemathesis.openapi.from_dict(openapi.document()).exclude(path=[STREAM, "/schema.json"])
"""The document without the stream, which never ends, and what Bento answers."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the whole service, without Bento."""
    with closing(Service(Settings(home=tmp_path_factory.mktemp("home"), domain="saas"))) as service:
        announcer = wiring.announcer(service.settings, service.engine, service.live)
        assert announcer is not None
        service.app.channels = wiring.channels(service.settings, service.engine, announcer)
        service.app.declared = Declared(service.settings, service.engine.playbook)
        with serving(service.app) as address:
            yield address
        announcer.close()
        service.app.channels.close()


@SCHEMA.parametrize()
@settings(max_examples=2, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_those_of_the_document(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=60)


@pytest.mark.soak
@SCHEMA.parametrize()
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_answers_are_those_of_the_document_at_length(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=60)
