"""The onboarding policy: which elements a person is shown, within which boundaries, and what became of them.

policies/<domain>.yaml ─► load ─► Policy ┐
a person's segments ─────────────────────┼─► choose ─► Choice: elements, why, and what a boundary dropped
a person's history ─► fold ─► Feedback ──┘
"""

from serving.policy.choice import Choice, Dropped, choose
from serving.policy.feedback import ElementFeedback, Feedback, Seen, fold
from serving.policy.loading import PolicyError, for_domain, load, location, plain, segment_names
from serving.policy.model import Boundaries, Element, Limits, Policy

__all__ = [
    "Boundaries",
    "Choice",
    "Dropped",
    "Element",
    "ElementFeedback",
    "Feedback",
    "Limits",
    "Policy",
    "PolicyError",
    "Seen",
    "choose",
    "fold",
    "for_domain",
    "load",
    "location",
    "plain",
    "segment_names",
]
