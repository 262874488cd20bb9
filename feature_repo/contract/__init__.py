"""The event contract: what an event is, in closed and typed form, and why anything else is refused."""
