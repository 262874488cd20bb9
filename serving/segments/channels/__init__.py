"""Tells others of `segment.changed`: each channel reads the journal at its own pace, in order, at least once.

announcer ─► journal ─► wake ─► Channel (a thread each): webhook.py, broker.py
                  `─► Hub (sse.py): a bounded queue for each reader of GET /v1/segments/stream
"""
