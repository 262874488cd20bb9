"""The `saas` domain: people who have just signed up for a SaaS product, made up by a seeded simulator.

kinds.py, people.py     who they are and what becomes of them       clock.py    the rhythm of day and week
behaviour.py            what they do                                delivery.py how that arrives
experiment.py           an experiment among them
simulator.py            all of it: `simulate()`                     truth.py    what is true, and attainable
features.py             what the product knows of them              filling.py  to the lake
words.py                how people are told
"""

from functools import partial

from feature_repo.domain import Domain, Label, Segment
from feature_repo.domains.saas.features import COLUMNS, ELAPSED, ENRICH, EVENTS, FEATURES, PUBLISHED, SIGNED_UP
from feature_repo.domains.saas.filling import ingest
from feature_repo.domains.saas.people import HORIZON_DAYS
from feature_repo.domains.saas.truth import attainable
from feature_repo.domains.saas.words import ACTS, SAID
from feature_repo.lake.outcomes import outcomes_of_events
from feature_repo.vocabulary import DAY, HOUR

HORIZON = HORIZON_DAYS * DAY

DOMAIN = Domain(
    name="saas",
    title="Sign-ups of a SaaS product",
    columns=COLUMNS,
    events=EVENTS,
    features=FEATURES,
    elapsed=ELAPSED,
    horizon=HORIZON,
    label=Label(
        name="activation",
        doc="publishes a first project within 14 days of the sign-up",
        good=True,
        done="activations",
        done_segment="activated",
    ),
    observations=(HOUR, 6 * HOUR, DAY, 2 * DAY, 3 * DAY, 5 * DAY, 7 * DAY),
    segments=(
        Segment("at_risk", "Hardly there any more: will most likely not activate without a reason to come back"),
        Segment("hesitating", "Looks around and does little: needs a first small success"),
        Segment("exploring", "Tries things out: needs to be shown what is worth trying next"),
        Segment("racing", "Is setting things up in earnest: needs nothing in the way"),
    ),
    slices=("device", "referral", "country"),
    sensitive=("country",),
    ingest=ingest,
    outcomes=partial(outcomes_of_events, anchor=SIGNED_UP, outcome=PUBLISHED, horizon=HORIZON),
    attainable=attainable,
    enrich=ENRICH,
    acts=ACTS,
    said=SAID,
)
