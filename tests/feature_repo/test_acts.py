"""What a domain declares for people is checked when the program starts."""

from dataclasses import replace

import pytest

from feature_repo import domains
from feature_repo.domain import Act

SAAS = domains.load("saas")


def test_an_act_with_a_column_that_nobody_declared() -> None:
    with pytest.raises(ValueError, match="domain saas: act 'x' has undeclared columns: colour"):
        replace(SAAS, acts=(Act("x", "xs", {"colour": "red"}),))


@pytest.mark.parametrize("needs", ["colour", "device", "session_time_avg"])
def test_an_act_that_needs_what_is_no_number(needs: str) -> None:
    with pytest.raises(ValueError, match=f"domain saas: act 'x' needs {needs}, which is no int64 feature"):
        replace(SAAS, acts=(Act("x", "xs", {}, needs),))


def test_words_for_what_is_no_feature() -> None:
    with pytest.raises(ValueError, match="words for 'sesions', which is no feature; did you mean 'sessions'"):
        replace(SAAS, said={"sesions": "visits"})


@pytest.mark.parametrize("name", domains.names())
def test_the_outcome_itself_is_no_act(name: str) -> None:
    """Nobody is advised to do what is predicted."""
    domain = domains.load(name)
    assert domain.acts
    assert not [a for a in domain.acts if a.columns.get("name") in ("Project Published", "Signed Up", "Due", "Scored")]
    assert all(a.columns.get("name") in (None, *domain.events) for a in domain.acts)
