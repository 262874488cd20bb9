"""What OULAD's events say about an enrolment. A feature is one entry of FEATURES."""

from feature_repo.vocabulary import (
    WEEK,
    Column,
    Count,
    Distinct,
    Elapsed,
    Feature,
    First,
    FirstTime,
    Initial,
    Last,
    LastTime,
    Linear,
    Ratio,
    Sum,
    mean,
    trend,
    where,
)

EVENTS = {
    "Viewed": {"site": "string", "activity": "string", "clicks": "int64"},
    "Due": {"assessment": "string", "kind": "string", "weight": "int64"},
    "Submitted": {
        "assessment": "string",
        "kind": "string",
        "days_early": "int64",
        "banked": "int64",
        "weight": "int64",
    },
    "Scored": {"assessment": "string", "score": "int64"},
}

COLUMNS = (
    Column("site", "properties.site"),
    Column("activity", "properties.activity"),
    Column("clicks", "properties.clicks", "int64", low=0),
    Column("days_early", "properties.days_early", "int64"),
    Column("banked", "properties.banked", "int64"),
    Column("score", "properties.score", "int64", low=0, high=100),
    Column("weight", "properties.weight", "int64", low=0, high=1_000),  # tenths of a per cent
    Column("module", "traits.module"),
    Column("gender", "traits.gender"),
    Column("region", "traits.region"),
    Column("education", "traits.education", "int64"),
    Column("imd_band", "traits.imd_band", "int64"),
    Column("age_band", "traits.age_band"),
    Column("disability", "traits.disability"),
    Column("previous_attempts", "traits.previous_attempts", "int64"),
    Column("credits", "traits.credits", "int64"),
)

VIEWED, DUE, SUBMITTED, SCORED = (where(name=n) for n in ("Viewed", "Due", "Submitted", "Scored"))
SIGNED_UP = where(type="identify")
OWN = where(name="Submitted", banked=0)


def viewed(activity: str) -> tuple[tuple[str, tuple[str | int, ...]], ...]:
    """Views of one type of activity."""
    return where(name="Viewed", activity=activity)


FEATURES = (
    Feature("clicks", Sum("clicks"), "clicks so far", "clicks"),
    Feature("clicks_1w", Sum("clicks", window=WEEK), "clicks in the last 7 days", "clicks"),
    Feature("clicks_2w", Sum("clicks", window=2 * WEEK), "clicks in the last 14 days", "clicks"),
    Feature("clicks_4w", Sum("clicks", window=4 * WEEK), "clicks in the last 28 days", "clicks"),
    Feature(
        "clicks_week_before",
        Linear(((Sum("clicks", window=2 * WEEK), 1), (Sum("clicks", window=WEEK), -1))),
        "clicks in the 7 days before the last 7",
        "clicks",
    ),
    Feature("clicks_first_week", Sum("clicks", initial=Initial(WEEK, VIEWED)), "clicks in the first 7 days", "clicks"),
    Feature("clicks_trend", trend(Sum("clicks"), WEEK, 4 * WEEK), "last week's clicks x 4 less the last four weeks'"),
    Feature("active_days", Distinct("day", VIEWED), "days with a click", "days"),
    Feature("active_days_1w", Distinct("day", VIEWED, WEEK), "days with a click in the last 7", "days"),
    Feature("active_days_2w", Distinct("day", VIEWED, 2 * WEEK), "days with a click in the last 14", "days"),
    Feature(
        "active_days_week_before",
        Linear(((Distinct("day", VIEWED, 2 * WEEK), 1), (Distinct("day", VIEWED, WEEK), -1))),
        "days with a click in the 7 days before the last 7",
        "days",
    ),
    Feature("active_days_4w", Distinct("day", VIEWED, 4 * WEEK), "days with a click in the last 28", "days"),
    Feature("clicks_per_active_day", Ratio(Sum("clicks"), Distinct("day", VIEWED)), "clicks per day with a click"),
    Feature("sites", Distinct("site", VIEWED), "different pages seen", "pages"),
    Feature("sites_1w", Distinct("site", VIEWED, WEEK), "different pages seen in the last 7 days", "pages"),
    Feature("sites_4w", Distinct("site", VIEWED, 4 * WEEK), "different pages seen in the last 28 days", "pages"),
    Feature("activities", Distinct("activity", VIEWED), "types of activity used", "types"),
    Feature("activities_2w", Distinct("activity", VIEWED, 2 * WEEK), "types used in the last 14 days", "types"),
    Feature("homepage_clicks_2w", Sum("clicks", viewed("homepage"), 2 * WEEK), "homepage clicks, 14 days", "clicks"),
    Feature("forum_clicks", Sum("clicks", viewed("forumng")), "forum clicks so far", "clicks"),
    Feature("forum_clicks_2w", Sum("clicks", viewed("forumng"), 2 * WEEK), "forum clicks, 14 days", "clicks"),
    Feature("content_clicks", Sum("clicks", viewed("oucontent")), "course content clicks so far", "clicks"),
    Feature("content_clicks_2w", Sum("clicks", viewed("oucontent"), 2 * WEEK), "content clicks, 14 days", "clicks"),
    Feature("quiz_clicks", Sum("clicks", viewed("quiz")), "quiz clicks so far", "clicks"),
    Feature("quiz_clicks_4w", Sum("clicks", viewed("quiz"), 4 * WEEK), "quiz clicks, 28 days", "clicks"),
    Feature("resource_clicks", Sum("clicks", viewed("resource")), "resource clicks so far", "clicks"),
    Feature("url_clicks", Sum("clicks", viewed("url")), "clicks on outside links so far", "clicks"),
    Feature("submissions", Count(SUBMITTED), "assessments handed in", "assessments"),
    Feature("submissions_2w", Count(SUBMITTED, window=2 * WEEK), "handed in within the last 14 days", "assessments"),
    Feature("banked_submissions", Count(where(name="Submitted", banked=1)), "carried over from before", "assessments"),
    Feature("due", Count(DUE), "assessments whose deadline has passed", "assessments"),
    Feature("overdue", Linear(((Count(DUE), 1), (Count(SUBMITTED), -1))), "due less handed in; below 0: ahead"),
    Feature("overdue_own", Linear(((Count(DUE), 1), (Count(OWN), -1))), "the same without what was carried over"),
    Feature(
        "overdue_weight",
        Linear(((Sum("weight", DUE), 1), (Sum("weight", SUBMITTED), -1))),
        "weight of what is due less weight of what was handed in",
        "thousandths of the mark",
    ),
    Feature("submitted_of_due", Ratio(Count(SUBMITTED), Count(DUE)), "handed in for each one due", null="none due yet"),
    Feature("own_of_due", Ratio(Count(OWN), Count(DUE)), "the same without what was carried over", null="none due yet"),
    Feature("mean_days_early", mean("days_early", OWN), "mean days before the deadline", "days"),
    Feature("scores", Count(SCORED), "scores known", "scores"),
    Feature("mean_score", mean("score", SCORED), "mean of the scores known", "points of 100"),
    Feature(
        "points_of_due",
        Ratio(Sum("score", SCORED), Count(DUE)),
        "the same for each one due, none counts 0",
        "points of 100",
        null="none due yet",
    ),
    Feature("last_score", Last("score", SCORED), "the last score known", "points of 100"),
    Feature("last_due_at", LastTime(DUE), "the last deadline", "µs since 1970 UTC"),
    Feature("last_submission_at", LastTime(OWN), "when something was last handed in", "µs since 1970 UTC"),
    Feature("registered_at", FirstTime(SIGNED_UP), "when the enrolment began", "µs since 1970 UTC"),
    Feature("first_click_at", FirstTime(VIEWED), "first day with a click", "µs since 1970 UTC"),
    Feature("last_click_at", LastTime(VIEWED), "last day with a click", "µs since 1970 UTC"),
    Feature("module", First("module"), "course module"),
    Feature("gender", First("gender"), "gender"),
    Feature("region", First("region"), "region"),
    Feature("education", First("education"), "education on entry: 0 none, 1 below A level ... 4 post-graduate"),
    Feature(
        "imd_band", First("imd_band"), "deprivation: lower end of the band", "%", null="not known, or not seen yet"
    ),
    Feature("age_band", First("age_band"), "age band"),
    Feature("disability", First("disability"), "declared disability (Y/N)"),
    Feature("previous_attempts", First("previous_attempts"), "times this module was tried before", "attempts"),
    Feature("credits", First("credits"), "credits studied at the same time", "credits"),
)

ELAPSED = (
    Elapsed("seconds_since_registration", "registered_at", "time since registration"),
    Elapsed("seconds_since_first_click", "first_click_at", "time since the first day with a click"),
    Elapsed("seconds_since_last_due", "last_due_at", "time since the last deadline"),
    Elapsed("seconds_since_last_submission", "last_submission_at", "time since something was last handed in"),
    Elapsed("seconds_since_last_click", "last_click_at", "time since the last day with a click"),
)
