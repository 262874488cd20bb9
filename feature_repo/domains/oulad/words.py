"""What is said to people about the features of an enrolment, and what they can do more of."""

from collections.abc import Mapping

from feature_repo.domain import Act, Carried
from feature_repo.vocabulary import Scalar

SAID = {
    "clicks": "clicks in all",
    "clicks_trend": "pace of the last week against the last four",
    "clicks_per_active_day": "clicks a day",
    "activities": "kinds of activity tried",
    "activities_2w": "kinds of activity tried in the last 14 days",
    "homepage_clicks_2w": "clicks on the homepage in the last 14 days",
    "forum_clicks": "clicks in the forum",
    "forum_clicks_2w": "clicks in the forum in the last 14 days",
    "content_clicks": "clicks in the course content",
    "content_clicks_2w": "clicks in the course content in the last 14 days",
    "quiz_clicks": "clicks in quizzes",
    "quiz_clicks_4w": "clicks in quizzes in the last 28 days",
    "resource_clicks": "clicks on resources",
    "url_clicks": "clicks on outside links",
    "submissions_2w": "assessments handed in within the last 14 days",
    "banked_submissions": "assessments carried over from before",
    "due": "deadlines that have passed",
    "overdue": "assessments overdue",
    "overdue_own": "assessments overdue, those carried over not counted",
    "overdue_weight": "weight of the assessments overdue",
    "submitted_of_due": "assessments handed in for each one due",
    "own_of_due": "assessments handed in for each one due, those carried over not counted",
    "mean_days_early": "average number of days before the deadline",
    "mean_score": "average score",
    "points_of_due": "points for each assessment due",
    "last_score": "last score",
    "last_due_at": "the last deadline",
    "last_submission_at": "the last time that something was handed in",
    "registered_at": "the registration",
    "first_click_at": "the first day with a click",
    "last_click_at": "the last day with a click",
    "education": "education on entry, from 0 to 4",
    "imd_band": "deprivation of the home area",
    "previous_attempts": "earlier tries at this module",
}

VIEWED: Mapping[str, Scalar | Carried] = {"name": "Viewed", "clicks": 1, "site": Carried.AGAIN}

ACTS = (
    Act("click in the forum", "clicks in the forum", {**VIEWED, "activity": "forumng"}),
    Act("click in the course content", "clicks in the course content", {**VIEWED, "activity": "oucontent"}),
    Act("click in a quiz", "clicks in a quiz", {**VIEWED, "activity": "quiz"}),
    Act(
        "assessment handed in",
        "assessments handed in",
        {"name": "Submitted", "banked": 0, "days_early": Carried.SOME, "weight": Carried.SOME},
    ),
)
