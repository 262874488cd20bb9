"""A domain is checked when it is loaded: an error names the place, what is wrong, and the nearest name."""

from dataclasses import replace
from typing import Any

import pytest

from feature_repo import domains
from feature_repo.contract.feedback import STANDARD
from feature_repo.domain import Act, Domain, Label
from feature_repo.vocabulary import Column, Count, Feature, First, Initial, Ratio, Sum, Term, where

SAAS = domains.load("saas")


def with_term(term: Term) -> dict[str, Any]:
    return {"features": (*SAAS.features, Feature("new", term, "new"))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": Label("l", "", True, done="activation")}, "label l: done='activation' .*did you mean 'activations'"),
        ({"label": Label("l", "", True, done="plan")}, "done='plan' is no int64 feature"),
        (with_term(Count(where(name="Clickd"))), r"feature new: where\(name='Clickd'\).*did you mean 'Clicked'"),
        (with_term(Count(initial=Initial(1, where(name="Signed up")))), "did you mean 'Signed Up'"),
        (with_term(Ratio(Count(), Count(where(type="trak")))), "did you mean 'track'"),
        (with_term(Count(where(plann="free"))), "undeclared column 'plann'; did you mean 'plan'"),
        (with_term(Count(where(bytes="12"))), r"where\(bytes='12'\): expected a value of type int64"),
        (with_term(Count(where(plan=1))), "expected a value of type string"),
        (with_term(Sum("plan")), "feature new: sums column plan, which is a string"),
        (with_term(Ratio(First("plan"), Count())), r"First\('plan'\) is a string"),
        ({"slices": ("devise",)}, "slice 'devise' is no string feature; did you mean 'device'"),
        ({"sensitive": ("contry",)}, "sensitive 'contry' is no feature; did you mean 'country'"),
        ({"sensitive": ("activations",)}, "label activation is done by activations, a sensitive feature"),
        ({"sensitive": ("features_used",)}, "act 'use of .*' needs features_used, a sensitive feature"),
        (with_term(First("country")), "feature new tells what the sensitive country does: name it under sensitive too"),
        (with_term(Count(where(country="DE"))), "feature new tells what the sensitive country does"),
        ({"sensitive": ("signed_up_us",)}, "feature since_signup tells what the sensitive signed_up_us does"),
        ({"said": {"clikcs": "clicks"}}, "words for 'clikcs', which is no feature; did you mean 'clicks'"),
        ({"acts": (Act("a", "b", {"name": "Clickd"}),)}, "act 'a': .*did you mean 'Clicked'"),
    ],
)
def test_a_typo_is_an_error_with_the_nearest_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"domain saas: .*{words}"):
        replace(SAAS, **change)


def test_what_is_wrong_in_two_places_is_said_once_and_each_name_there_is_once() -> None:
    nowhere = Count(where(name="Xyzzy"))
    with pytest.raises(ValueError, match="Xyzzy") as raised:
        replace(SAAS, **with_term(Ratio(nowhere, nowhere)))
    assert str(raised.value).count("Xyzzy") == 1
    names = str(raised.value).partition("there are ")[2].split(", ")
    assert "Clicked" in SAAS.events and names == sorted({*SAAS.events, *STANDARD})


@pytest.mark.parametrize(
    "term",
    [
        Count(where(type="page", name="Pricing")),
        Count(where(type=("screen", "track"), name="Settings")),
        Count(where(name="Element Dismissed")),
        Count(where(day=1)),
    ],
)
def test_names_that_cannot_be_known_pass(term: Term) -> None:
    assert isinstance(replace(SAAS, **with_term(term)), Domain)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"type": "date"}, "expected a type of string, int64, boolean, decimal; came 'date'"),
        ({"type": "decimal"}, "needs a scale"),
        ({"type": "int64", "scale": 2}, "needs a scale"),
        ({"type": "decimal", "scale": 19}, "a scale of 0 to 18"),
        ({"low": 1}, "bounds are for int64 and decimal"),
        ({"type": "int64", "low": 2, "high": 1}, "low <= high"),
        ({"type": "int64", "low": "1.5"}, "at most 0 decimals"),
        ({"type": "int64", "low": "x"}, "expected a bound"),
        ({"type": "decimal", "scale": 2, "high": 9.99}, "an integer or a text"),
        ({"type": "int64", "high": 2**63}, "in int64"),
        ({"type": "int64", "low": 1, "outside": "wrap"}, "outside"),
    ],
)
def test_a_column_that_cannot_be_is_an_error(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"column c: .*{words}"):
        Column("c", "properties.c", **arguments)
