"""Collectors: what SDKs of four kinds send, unmodified, becomes events of the contract, and each event gets a receipt.

HTTP ─► routes.py: origin, size, time, key, rate ─► a dialect ─► [contract events as JSON] ─► door.py ─► the event log
                                                   segment.py, mixpanel.py, ga4.py              └─► the quarantine
     ◄─ the answer that the SDK expects, with receipts where it does not look ◄─────────── [Receipt]
"""
