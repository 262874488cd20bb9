"""The catalogue, the commands that show it, and what a domain's declaration is checked for."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from feature_repo import domains
from feature_repo.__main__ import main
from feature_repo.features.catalogue import catalogue
from feature_repo.vocabulary import Count, Elapsed, Feature


@pytest.mark.parametrize("name", domains.names())
def test_every_domain_declares_at_least_25_features_in_words(name):
    rows = catalogue(domains.load(name))
    assert len(rows) >= 25
    assert [r["feature"] for r in rows if not all(r.values())] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": (Feature("a", Count(), ""), Feature("a", Count(), ""))}, "used twice: a"),
        ({"features": (Feature("a", Count(column="nowhere"), ""),)}, "undeclared column"),
        ({"elapsed": (Elapsed("b", "nowhere", ""),)}, "no int64 feature"),
        ({"slices": ("clicks",)}, "no string feature"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(change, words):
    with pytest.raises(ValueError, match=words):
        replace(domains.load("saas"), **({"elapsed": (), "slices": ()} | change))


def test_an_unknown_domain_names_the_known_ones():
    with pytest.raises(ValueError, match="oulad, saas"):
        domains.load("nowhere")


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_with_an_example(command):
    shown = CliRunner().invoke(main, [command, "--help"])
    assert shown.exit_code == 0
    assert "Example: python -m feature_repo" in shown.output


def test_features_prints_type_unit_window_and_the_meaning_of_null():
    shown = CliRunner().invoke(main, ["features", "--domain", "saas"]).output
    for word in ("interactions_1h", "int64", "last 1 h", "first 24 h", "µs since 1970 UTC", "never null"):
        assert word in shown
