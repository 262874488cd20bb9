"""The standard events of every product: what became of what a decision showed, and what the browser snippet sends.

Their names are those of Segment's spec where it has one (Experiment Viewed). `decision_id` may say which decision it
was. Every domain takes them in beside the events that it declares itself.
"""

from collections.abc import Mapping

SHOWN = "Element Shown"
CLICKED = "Element Clicked"
DISMISSED = "Element Dismissed"
COMPLETED = "Element Completed"
VIEWED = "Experiment Viewed"

ABOUT_ELEMENTS = (SHOWN, CLICKED, DISMISSED, COMPLETED)

EVENTS: Mapping[str, Mapping[str, str]] = {
    **{name: {"element": "string", "decision_id": "string"} for name in ABOUT_ELEMENTS},
    VIEWED: {"experiment_id": "string", "variation_id": "string", "decision_id": "string"},
}
"""Event name -> the properties that must have a type, as in Domain.events."""

BROWSER = ("Clicked", "Form Submitted", "Field Changed")
"""The track events that the browser snippet sends by itself. Their properties have the types that a domain declares."""
STANDARD = (*EVENTS, *BROWSER)
"""The track events that every domain takes."""
