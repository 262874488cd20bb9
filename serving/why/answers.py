"""The answers that say why, as they go over the wire."""

from typing import Annotated

from msgspec import Meta, Struct

Time = Annotated[str, Meta(description="RFC 3339, microseconds, UTC.")]


class RuleHeld(Struct, rename="camel", frozen=True):
    """A rule segment that holds."""

    segment: str
    why: Annotated[str, Meta(description="In the words of the rules file.")]
    because: Annotated[
        str,
        Meta(description="The conditions that decided, with the values they met.", examples=["sessions > 5 (is 6)"]),
    ]
    since: Time


class Change(Struct, rename="camel", frozen=True):
    """What would change the outcome: the fewest further acts that were found, done at the moment of the decision."""

    segment: str
    source: Annotated[str, Meta(description="`engagement` or `rules`.")]
    words: Annotated[str, Meta(examples=["With one more file of 1 MB uploaded they would be in exploring."])]
    left_alone: Annotated[
        list[str], Meta(description="Features that these acts may change too, in a way that nobody can foretell.")
    ]


class DataUsed(Struct, rename="camel", frozen=True):
    """What was known of the person and read by the model or a rule."""

    as_of: Annotated[str | None, Meta(description="The last change that the features hold; null: none were used.")]
    features: Annotated[
        dict[str, str], Meta(description="In words, with the value.", examples=[{"sessions": "visits (6)"}])
    ]


class Explanation(Struct, rename="camel", frozen=True):
    """A decision in words."""

    sentences: Annotated[list[str], Meta(description="What moved the score; or why there is none.")]
    rules: Annotated[list[RuleHeld], Meta(description="The rule segments that hold.")]
    counterfactual: Annotated[
        Change | None, Meta(description="What leads to a better engagement segment; null: nothing that is as simple.")
    ]
    rule_within_reach: Annotated[
        Change | None, Meta(description="What leads to one more rule segment; null: as above.")
    ]
    variants: Annotated[list[str], Meta(description="The experiments that the person is in, and why.")]
    dropped: Annotated[list[str], Meta(description="What a boundary removed, and with which values.")]
    data: DataUsed


class Element(Struct, rename="camel", frozen=True):
    """Something that was shown, or that was not."""

    title: str
    why: str


class Why(Struct, rename="camel", frozen=True):
    """What a person was shown last, and why, for the person."""

    opted_out: bool
    at: Annotated[str | None, Meta(description="When it was decided: RFC 3339, UTC; null: nothing was yet.")]
    shown: list[Element]
    not_shown: Annotated[list[Element], Meta(description="What would have been for them, and was left out.")]
    sentences: Annotated[list[str], Meta(description="What was found out about them, and what would change it.")]
    data: Annotated[list[str], Meta(description="What was known and used, with the values.")]
    data_as_of: Annotated[str | None, Meta(description="RFC 3339, UTC; null: nothing was used.")]
    your_choices: Annotated[list[str], Meta(description="How to opt out, to see everything, and to have it erased.")]
