"""Feast: its objects, its offline and online stores, and the bulk ways into them."""
