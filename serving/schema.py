"""The wire contract: what a service sends to be told what to show, and what it gets back.

The structs are the contract. Parsing, the answers and the OpenAPI document (openapi.py) are all made from them.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from feature_repo.contract.events import ANONYMOUS
from serving.why.answers import Explanation

MAX_USERS = 1_000
"""Users in one batch request."""

UserId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="The person, as the product's events name them. None begins with `anon:`.",
        examples=["u-1842"],
        extra_json_schema={"pattern": f"^(?!{ANONYMOUS})"},
    ),
]
AnonymousId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="A device's or browser's id, as the product's events name it. It stands for the user to whom it is "
        "linked when the decision is made, by the last identify or alias event on it; without one, for an anonymous "
        "user.",
        examples=["b7c1a9"],
    ),
]
After = Annotated[
    Annotated[str, Meta(max_length=100)] | None,
    Meta(
        description="The messageId of an event that was sent for this person before: the decision waits for it, at "
        "most a second, and is `stale` where it has not come by then. Needed only where a broker holds the events.",
        examples=["m-1"],
    ),
]
Explain = Annotated[bool, Meta(description="Add `contributions` and `explanation`: why, in words.")]


class DecideRequest(Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Ask what one user's onboarding shows next: by userId, or by anonymousId; with both, userId alone counts."""

    user_id: UserId | UnsetType = UNSET
    anonymous_id: AnonymousId | UnsetType = UNSET
    explain: Explain = False
    after: After = None


class BatchRequest(Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Ask for 1 to 1,000 users at once.

    The decisions come back in the order of the ids: those of userIds, then those of anonymousIds.
    """

    user_ids: Annotated[list[UserId], Meta(max_length=MAX_USERS, examples=[["u-1842", "u-1843"]])] = []
    anonymous_ids: Annotated[list[AnonymousId], Meta(max_length=MAX_USERS, examples=[["b7c1a9"]])] = []
    explain: Explain = False


class ModelRef(Struct, rename="camel", frozen=True):
    """The model that was asked."""

    name: Annotated[str, Meta(examples=["saas-engagement"])]
    version: Annotated[int, Meta(ge=0, examples=[3])]


class Contribution(Struct, rename="camel", frozen=True):
    """What one feature did to the score, in the model's own units (log-odds for a boosted tree)."""

    feature: Annotated[str, Meta(examples=["sessions_24h"])]
    value: float | int | str | None
    effect: Annotated[float, Meta(description="Above 0: raised the score.", examples=[0.42])]


class DroppedElement(Struct, rename="camel", frozen=True):
    """An element that the person's segments would give, and a boundary removed."""

    element: str
    boundary: Annotated[str, Meta(examples=["cool_down"])]
    detail: Annotated[str, Meta(examples=["shown 3 hours ago, again after 2 days"])]


class Variant(Struct, rename="camel", frozen=True):
    """An experiment that the person takes part in. Send `Experiment Viewed` when what it changes is shown."""

    experiment: str
    variant: str


class Decision(Struct, rename="camel", frozen=True):
    """What one person's onboarding shows next, and why."""

    decision_id: Annotated[
        str,
        Meta(description="Time-ordered id (the hex digits of a UUID version 7).", pattern="^[0-9a-f]{32}$"),
    ]
    user_id: Annotated[str | None, Meta(description="The user who was decided for; null: an anonymous one.")]
    anonymous_id: Annotated[str | None, Meta(description="The anonymous user who was decided for; null: a known one.")]
    at: Annotated[
        str,
        Meta(description="When it was decided: RFC 3339, microseconds, UTC.", examples=["2026-03-01T09:30:00.000000Z"]),
    ]
    known: Annotated[bool, Meta(description="Whether this person's features were found.")]
    segment: Annotated[
        str | None, Meta(description="Engagement segment; null: not scored, the default journey was taken.")
    ]
    segments: Annotated[
        list[str],
        Meta(
            description="All of the person's segments (by rules, by engagement, persona), in the order in which they "
            "compose.",
            examples=[["active_learner", "exploring"]],
        ),
    ]
    persona: Annotated[str | None, Meta(description="Discovered persona; null: none is near, or there are none.")]
    score: Annotated[
        float | None,
        Meta(description="Probability of the domain's outcome, 0 to 1; null: not scored."),
    ]
    model: Annotated[ModelRef | None, Meta(description="null: no model is loaded.")]
    elements: Annotated[
        list[str], Meta(description="What to show, in this order.", examples=[["checklist", "invite_team"]])
    ]
    dropped: Annotated[list[DroppedElement], Meta(description="What a boundary removed, in the order of the journey.")]
    experiments: list[Variant]
    holdout: Annotated[bool, Meta(description="Whether the person always gets the default journey, for comparison.")]
    reasons: Annotated[list[str], Meta(description="Why, in words, in the order in which it was decided.")]
    stale: Annotated[
        bool,
        Meta(
            description="Whether the features lack an event that was accepted before, or the end of a window, or could "
            "not be read at all: it could not be waited for, and the reasons say what."
        ),
    ] = False
    contributions: Annotated[
        list[Contribution] | UnsetType,
        Meta(
            description="The features that moved the score most, strongest first; only with `explain`, and only where "
            "the model can say."
        ),
    ] = UNSET
    explanation: Annotated[Explanation | UnsetType, Meta(description="Only with `explain`.")] = UNSET


class BatchResponse(Struct, rename="camel", frozen=True):
    """The decisions, in the order of the ids that were asked for."""

    decisions: list[Decision]


class Problem(Struct, rename="camel", frozen=True, omit_defaults=True):
    """Why a request was refused."""

    code: Annotated[str, Meta(description="A fixed word for programs.", examples=["invalid_request"])]
    message: Annotated[str, Meta(description="What is wrong, and what was expected.")]
    where: Annotated[str | None, Meta(description="Path to the wrong part of the body.", examples=["$.userId"])] = None
