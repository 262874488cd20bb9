"""What the SaaS product knows about its people: columns, events and features."""

from feature_repo.enrichment import Channel, LocalTime, UserAgent
from feature_repo.vocabulary import (
    DAY,
    HOUR,
    MINUTE,
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
    Sessions,
    SessionTime,
    Sum,
    mean,
    trend,
    where,
)

COLUMNS = (
    Column("device", "context.device.type"),
    Column("browser", "context.browser"),
    Column("country", "context.location.country"),
    Column("referral", "context.campaign.source"),
    Column("plan", "traits.plan"),
    Column("role", "traits.role"),
    Column("company_size", "traits.company_size"),
    Column("feature", "properties.feature"),
    Column("bytes", "properties.bytes", "int64", low=0, high=10**12),
    Column("fields_empty", "properties.fields_empty", "int64", low=0, high=1_000),
)

EVENTS = {
    "Form Submitted": {"ok": "boolean", "fields_empty": "int64"},
    "Signed Up": {"plan": "string", "fields_empty": "int64"},
    "Element Shown": {"element": "string"},
    "Clicked": {"target": "string"},
    "Feature Used": {"feature": "string"},
    "File Uploaded": {"bytes": "int64"},
    "Invitation Sent": {"role": "string"},
    "Error Shown": {"status": "int64"},
    "Help Opened": {"topic": "string"},
    "Project Published": {},
}

ENRICH = (UserAgent(), Channel(), LocalTime())

GAP = 30 * MINUTE

PAGE = where(type="page")
CLICKED = where(name="Clicked")
FORM = where(name="Form Submitted")
SIGNED_UP = where(name="Signed Up")
USED = where(name="Feature Used")
UPLOADED = where(name="File Uploaded")
INVITED = where(name="Invitation Sent")
ERROR = where(name="Error Shown")
HELP = where(name="Help Opened")
PUBLISHED = where(name="Project Published")
INTERACTION = where(name=("Clicked", "Feature Used", "File Uploaded", "Invitation Sent", "Help Opened"))
FIRST_DAY = Initial(DAY, SIGNED_UP)

ENGAGEMENT = Linear(
    (
        (Count(PAGE), 1),
        (Count(CLICKED), 1),
        (Count(USED), 3),
        (Count(UPLOADED), 5),
        (Count(INVITED), 8),
        (Count(ERROR), -2),
        (Distinct("feature", USED), 5),
        (Distinct("day"), 10),
    )
)

FEATURES = (
    Feature("sessions", Sessions(GAP), "Visits: runs of events at most 30 minutes apart", "sessions"),
    Feature("session_time", SessionTime(GAP), "Time inside sessions", "ms"),
    Feature("session_time_avg", Ratio(SessionTime(GAP), Sessions(GAP)), "Average length of a session", "ms"),
    Feature("sessions_7d", Sessions(GAP, window=WEEK), "Sessions begun in the last 7 days", "sessions"),
    Feature("pages", Count(PAGE), "Pages seen, before the sign-up too", "pages"),
    Feature("clicks", Count(CLICKED), "Clicks on something we track, before the sign-up too", "clicks"),
    Feature(
        "click_to_signup",
        Ratio(Count(SIGNED_UP), Count(CLICKED)),
        "Sign-ups for each click: 1 / clicks once signed up, so it falls as somebody goes on clicking",
        null="no click yet",
    ),
    Feature("interactions", Count(INTERACTION), "Clicks, features used, uploads, invitations, help opened", "events"),
    Feature("interactions_1h", Count(INTERACTION, window=HOUR), "Interactions of the last hour", "events"),
    Feature("interactions_24h", Count(INTERACTION, window=DAY), "Interactions of the last 24 hours", "events"),
    Feature("interactions_7d", Count(INTERACTION, window=WEEK), "Interactions of the last 7 days", "events"),
    Feature(
        "interactions_trend",
        trend(Count(INTERACTION), DAY, WEEK),
        "Pace of the last 24 hours against the last 7 days: 7 times the former less the latter; 0 is even",
        "events",
    ),
    Feature(
        "first_day_interactions",
        Count(INTERACTION, initial=FIRST_DAY),
        "Interactions in the 24 hours from the sign-up",
        "events",
    ),
    Feature("first_day_pages", Count(PAGE, initial=FIRST_DAY), "Pages seen in the 24 hours from the sign-up", "pages"),
    Feature(
        "first_day_upload_bytes",
        Sum("bytes", UPLOADED, initial=FIRST_DAY),
        "Bytes uploaded in the 24 hours from the sign-up",
        "bytes",
    ),
    Feature("features_used", Distinct("feature", USED), "Different product features used", "features"),
    Feature(
        "features_used_24h",
        Distinct("feature", USED, DAY),
        "Different product features used in the last 24 hours",
        "features",
    ),
    Feature("feature_uses", Count(USED), "Uses of any product feature", "events"),
    Feature("uploads", Count(UPLOADED), "Files uploaded", "files"),
    Feature("upload_bytes", Sum("bytes", UPLOADED), "Bytes uploaded", "bytes"),
    Feature("upload_bytes_avg", mean("bytes", UPLOADED), "Average size of an upload", "bytes", "nothing uploaded yet"),
    Feature("invitations", Count(INVITED), "Colleagues invited", "invitations"),
    Feature("errors", Count(ERROR), "Errors shown", "errors"),
    Feature("help_opened", Count(HELP), "Times that help was opened", "events"),
    Feature("active_days", Distinct("day"), "Days (UTC) with at least one event", "days"),
    Feature("engagement", ENGAGEMENT, "Weighted sum of what people do: the weights are in features.py", "points"),
    Feature(
        "form_attempts", Count(FORM), "Times that the sign-up form was sent, the successful one included", "attempts"
    ),
    Feature(
        "form_fields_empty",
        Last("fields_empty", SIGNED_UP),
        "Fields left empty at the sign-up",
        "fields",
        "not signed up yet",
    ),
    Feature("referral", First("referral"), "Where somebody first came from"),
    Feature("device", Last("device"), "Kind of device last used"),
    Feature("browser", Last("browser"), "Browser last used"),
    Feature("country", Last("country"), "Country last seen in (ISO 3166)"),
    Feature("plan", Last("plan"), "Plan last chosen", null="not signed up yet"),
    Feature("role", Last("role"), "Role that somebody gave", null="not answered"),
    Feature("company_size", Last("company_size"), "Size of the company that somebody gave", null="not answered"),
    Feature(
        "signup_part_of_day",
        First("part_of_day", SIGNED_UP),
        "Part of the UTC day at the sign-up",
        null="not signed up yet",
    ),
    Feature("signed_up_us", FirstTime(SIGNED_UP), "When somebody signed up", "µs since 1970 UTC", "not signed up yet"),
    Feature("last_event_us", LastTime(), "When somebody was last seen", "µs since 1970 UTC"),
    Feature(
        "last_interaction_us",
        LastTime(INTERACTION),
        "When somebody last interacted",
        "µs since 1970 UTC",
        "no interaction yet",
    ),
    Feature("activations", Count(PUBLISHED), "Projects published: the first one is the activation", "projects"),
    Feature("activated_us", FirstTime(PUBLISHED), "When somebody activated", "µs since 1970 UTC", "not activated"),
)

ELAPSED = (
    Elapsed("since_signup", "signed_up_us", "Time since the sign-up"),
    Elapsed("since_last_event", "last_event_us", "Time since somebody was last seen"),
    Elapsed("since_last_interaction", "last_interaction_us", "Time since somebody last interacted"),
)
