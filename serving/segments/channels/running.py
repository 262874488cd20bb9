"""All channels of a running service, put together in one place."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from feature_repo.settings import Settings
from serving.asgi import Answer, Scope, Stream
from serving.segments.channels.broker import Broker
from serving.segments.channels.channel import Channel, Destination
from serving.segments.channels.dead_letters import DeadLetters, folder
from serving.segments.channels.disabled import Disabled
from serving.segments.channels.endpoints import declared
from serving.segments.channels.hub import Hub
from serving.segments.channels.overview import Counts
from serving.segments.channels.sse import Streams
from serving.segments.channels.webhook import Webhook
from serving.segments.journal import Change, Journal

PATH, STREAM = "/v1/segments", "/v1/segments/stream"
EMBEDDED = "sqlite"
_encoder = msgspec.json.Encoder()


class Announcing(Protocol):
    """What tells of changes once they are in the journal: calls each of `listeners`, which do not wait."""

    listeners: list[Callable[[Sequence[Change]], None]]


class Channels:
    """What `start` gives."""

    def __init__(self, journal: Journal, channels: Sequence[Channel]) -> None:
        self.hub, self._counts, self._channels = Hub(), Counts(journal), channels
        self._streams = Streams(journal, self.hub)

    def tell(self, changes: Sequence[Change]) -> None:
        """These are in the journal: the announcer's listener."""
        for channel in self._channels:
            channel.wake()
        self.hub.tell(changes)

    async def respond(self, path: str, scope: Scope) -> Answer | Stream:
        """GET /v1/segments and /v1/segments/stream; raises what `Streams.open` does."""
        if path == STREAM:
            return await self._streams.open(scope)
        return Answer(_encoder.encode(await asyncio.to_thread(self._counts.now)))

    def close(self) -> None:
        """End the streams, and the channels when what is under way ends."""
        self.hub.close()
        for channel in self._channels:
            channel.stop()
        for channel in self._channels:
            channel.close()


def start(settings: Settings, journal: Journal, announcer: Announcing) -> Channels:
    """The channels that the environment names, running.

    Raises:
        WebhooksError: see endpoints.declared.
    """
    channels = [Channel(journal, to) for to in _destinations(settings, journal)]
    started = Channels(journal, channels)
    announcer.listeners.append(started.tell)
    for channel in channels:
        channel.start()
    return started


def _destinations(settings: Settings, journal: Journal) -> list[Destination]:
    letters, disabled = DeadLetters(folder(settings)), Disabled(folder(settings))
    webhooks: list[Destination] = [Webhook(e, journal, letters, disabled) for e in declared(settings)]
    return [*webhooks, Broker(settings)] if settings.log != EMBEDDED else webhooks
