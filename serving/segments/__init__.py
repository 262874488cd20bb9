"""Everybody's segments over time: kept with the time and the cause of each change, and told to whoever listens.

history ─► keeper (what the rules remember of each person) ─► decide
                 `─► journal (segments.db: append-only changes) ─► channels (server-sent events, webhooks, broker)
announcer: a thread that keeps up with whoever an event, or the clock, has touched
"""
