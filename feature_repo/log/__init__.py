"""The event log: where accepted events are durable, on this machine or in a broker."""
