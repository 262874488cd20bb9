"""What an event is given on its way in: small steps, each a function Event -> Event, declared by the domain in order.

[Event] ─► UserAgent ─► Channel ─► LocalTime ─► TableJoin ─► HttpJoin ─► [Event]

The service applies them between the contract and the event log, a bulk intake between the contract and the lake (all
but HttpJoin), so that what is in the log, the history and the lake is the same event. What a step adds is in the
event's context, at the paths that it names in `adds`, as domains' columns read them. What the sender gave stays, the
sender's null counts as absent, and a second time adds nothing. A step that fails leaves the event as it was.
"""

from feature_repo.enrichment.channel import Channel
from feature_repo.enrichment.http_join import HttpJoin
from feature_repo.enrichment.local_time import LocalTime
from feature_repo.enrichment.step import Step
from feature_repo.enrichment.table_join import TableJoin
from feature_repo.enrichment.user_agent import UserAgent

__all__ = ["Channel", "HttpJoin", "LocalTime", "Step", "TableJoin", "UserAgent"]
