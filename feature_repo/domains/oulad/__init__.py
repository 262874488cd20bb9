"""`oulad`: real people who sign up for a university course, then click, submit or leave.

The Open University Learning Analytics Dataset (J. Kuzilek, M. Hlosta, Z. Zdrahal, Scientific Data 4:170171, 2017,
CC BY 4.0). An enrolment is a user, registration is the sign-up. Days have no hours, so windows are weeks.
"""

from feature_repo.domain import Domain, Label, Segment
from feature_repo.domains.oulad.features import COLUMNS, ELAPSED, EVENTS, FEATURES
from feature_repo.domains.oulad.source import ingest, outcomes
from feature_repo.domains.oulad.words import ACTS, SAID
from feature_repo.vocabulary import DAY

DOMAIN = Domain(
    name="oulad",
    title="Open University courses",
    columns=COLUMNS,
    events=EVENTS,
    features=FEATURES,
    elapsed=ELAPSED,
    horizon=270 * DAY,
    label=Label("withdraws", "withdraws from the course after this day", good=False),
    observations=(14 * DAY, 28 * DAY),
    segments=(
        Segment("settled", "unlikely to leave"),
        Segment("wavering", "might leave"),
        Segment("leaving", "likely to leave"),
    ),
    slices=("gender", "age_band", "disability", "module"),
    sensitive=("gender", "disability", "age_band", "region", "imd_band"),
    ingest=ingest,
    outcomes=outcomes,
    acts=ACTS,
    said=SAID,
    needs_data="the folder with OULAD's seven tables as Parquet: make run DOMAIN=oulad DATA=<folder>",
)
