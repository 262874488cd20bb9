import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from serving.app import App
from serving.decide import ModelFault
from serving.models import Champion
from serving.rules import Rules, Segment
from serving.rules.conditions import Not, Persona


class Registry:
    """A registry in memory. `load` fails with `fault`, and takes `slow_s`."""

    def __init__(self, fakes: SimpleNamespace, version: int | None = 1) -> None:
        self.fakes, self.slow_s = fakes, 0.0
        self.champion: int | Exception | None = version
        self.fault: Exception | None = None
        self.loads: list[int] = []

    def version(self) -> int | None:
        if isinstance(self.champion, Exception):
            raise self.champion
        return self.champion

    def load(self, version: int) -> Any:
        self.loads.append(version)
        time.sleep(self.slow_s)
        if self.fault:
            raise self.fault
        return self.fakes.Model(version)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_the_champion_is_there_after_start_and_follows_the_alias(fakes: SimpleNamespace) -> None:
    registry = Registry(fakes)
    champion = Champion(registry.version, registry.load, poll_s=0.01).start()
    assert champion.model is not None and champion.model.version == 1
    registry.champion = 4
    until(lambda: champion.swaps == 2)
    registry.champion = 1
    until(lambda: champion.swaps == 3)
    champion.close()
    assert champion.model.version == 1
    assert registry.loads == [1, 4, 1]


def test_a_model_is_loaded_once(fakes: SimpleNamespace) -> None:
    registry = Registry(fakes)
    champion = Champion(registry.version, registry.load, poll_s=None).start()
    assert [champion.poll() for _ in range(3)] == [False] * 3
    assert registry.loads == [1]


def test_no_champion_yet(fakes: SimpleNamespace) -> None:
    registry = Registry(fakes, None)
    champion = Champion(registry.version, registry.load, poll_s=0.01).start()
    assert champion.model is None
    assert "no champion yet" in (champion.error or "")
    registry.champion = 2
    until(lambda: champion.model is not None)
    assert champion.error is None
    champion.close()


def test_whatever_is_wrong_with_the_new_one_the_old_one_stays(fakes: SimpleNamespace) -> None:
    registry = Registry(fakes)
    champion = Champion(registry.version, registry.load, poll_s=None).start()
    old, registry.champion = champion.model, 2
    for fault in (OSError("artifact gone"), MemoryError("too large")):
        registry.fault = fault
        assert not champion.poll()
        assert champion.model is old
        assert str(fault) in (champion.error or "")
    registry.fault, registry.champion = None, ConnectionError("registry down")
    assert not champion.poll()
    assert "registry down" in (champion.error or "")
    registry.champion = None
    assert not champion.poll()
    assert champion.model is old


def test_a_model_that_cannot_score_is_not_put_in_place(fakes: SimpleNamespace) -> None:
    registry = Registry(fakes)
    champion = Champion(registry.version, registry.load, poll_s=None).start()
    champion._load = lambda version: fakes.Model(version, answer=RuntimeError("cannot"))
    registry.champion = 2
    assert not champion.poll()
    assert champion.model is not None and champion.model.version == 1
    assert "cannot" in (champion.error or "")


def test_a_model_that_does_not_fit_is_not_put_in_place(fakes: SimpleNamespace, state: SimpleNamespace) -> None:
    from serving.features import Reader
    from serving.wiring import fits

    reader = Reader(state.settings, state.domain)
    model = fakes.Model(7)
    fits(model, state.domain, reader, fakes.PLAYBOOK)
    assert reader.connect()
    fits(model, state.domain, reader, fakes.PLAYBOOK)
    model.features = ("clicks", "since_signup", "added_in_version_2")
    with pytest.raises(ModelFault, match="version 7 needs added_in_version_2, which the feature view does not hold"):
        fits(model, state.domain, reader, fakes.PLAYBOOK)
    model.features = ("clicks", "country")
    with pytest.raises(ModelFault, match="version 7 reads country, which domain saas declares sensitive"):
        fits(model, state.domain, reader, fakes.PLAYBOOK)
    model.features, model.segments = ("clicks",), ("slow", "new")
    with pytest.raises(ModelFault, match="version 7 has segment new"):
        fits(model, state.domain, reader, fakes.PLAYBOOK)
    registry = Registry(fakes)
    champion = Champion(
        registry.version, registry.load, None, lambda m: fits(m, state.domain, reader, fakes.PLAYBOOK)
    ).start()
    registry.champion, champion._load = 7, lambda _: model
    assert not champion.poll()
    assert champion.model is not None and champion.model.version == 1


def test_rules_that_name_a_persona_which_a_model_does_not_know_are_told_of(
    fakes: SimpleNamespace, state: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    from serving.features import Reader
    from serving.wiring import fits

    segments = [Segment(name, "why", Not(Persona(name))) for name in ("builders", "lurkers")]
    book = replace(fakes.PLAYBOOK, rules=Rules(state.domain.name, segments))
    model = fakes.Model(7)
    model.personas = ("lurkers", "regulars")
    reader = Reader(state.settings, state.domain)
    assert (
        fits(model, state.domain, reader, replace(fakes.PLAYBOOK, rules=Rules(state.domain.name, segments[1:]))) is None
    )
    model.answer, answer = RuntimeError("cannot"), model.answer
    champion = Champion(lambda: 7, lambda _: model, None, lambda m: fits(m, state.domain, reader, book))
    assert not champion.poll()
    assert "persona" not in caplog.text, "said when it is put in place, not each time that it is tried"
    model.answer = answer
    assert champion.poll() and not champion.poll()
    assert [r.getMessage() for r in caplog.records if "persona" in r.getMessage()] == [
        f"champion: the rules read persona builders, in which nobody is: {model.name} version 7 knows lurkers, regulars"
    ]


def test_a_swap_under_load_fails_no_request(fakes: SimpleNamespace, make_app: Callable[..., App]) -> None:
    registry = Registry(fakes)
    registry.slow_s = 0.05
    champion = Champion(registry.version, registry.load, poll_s=0.01).start()
    app = make_app()
    assert app.engine is not None
    app.engine.champion = champion
    answers: list[tuple[int, int]] = []

    async def ask(http: Any, stop: asyncio.Event) -> None:
        while not stop.is_set():
            response = await http.post("/v1/decide", json={"userId": "slow"})
            answers.append((response.status_code, response.json()["model"]["version"]))
            await asyncio.sleep(0)

    async def load() -> None:
        stop = asyncio.Event()
        async with fakes.client(app) as http:
            asking = [asyncio.create_task(ask(http, stop)) for _ in range(4)]
            for version in (2, 3):
                await asyncio.sleep(0.2)
                registry.champion = version
            while champion.swaps < 3:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*asking)

    asyncio.run(load())
    champion.close()
    assert {status for status, _ in answers} == {200}
    versions = [version for _, version in answers]
    assert sorted(set(versions)) == [1, 2, 3]
    assert versions == sorted(versions)
    assert len(versions) > 50
