"""The poller: drives the channels of a worker on its event loop.

Private parts of Kombu 5.7 in use: ``MultiChannelPoller._register``, ``_fd_to_chan``, ``_chan_to_sock``.
``tests/integration/test_celery_contract.py`` covers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.transport import redis as stock


class Poller(stock.MultiChannelPoller):
    """Drives the channels, and commits the ends of jobs before every sleep."""

    loop: Any = None
    """Celery's event loop."""

    def wake_in(self, seconds: float) -> None:
        """Wake the event loop in ``seconds``, for the next step of the channels."""
        if self.loop is not None:
            self.loop.call_later(seconds, _nothing)

    def on_poll_start(self) -> None:
        """Flush the ledger, then let every channel take its next step."""
        for channel in self._channels:
            channel.ledger.flush()  # also without consumers: a draining worker still ends jobs
            if channel.active_queues:
                channel.poll_start(self)
            if channel.active_fanout_queues:
                self._register_LISTEN(channel)

    def ensure_registered(self, channel: stock.Channel, client: Any, kind: str) -> None:
        """Connect a client and watch its socket, unless that has been done."""
        if not self._client_registered(channel, client, kind):
            self._register(channel, client, kind)

    def on_readable(self, fileno: int) -> None:
        """Pass an answer to the handler of the channel that waits for it."""
        if found := self._fd_to_chan.get(fileno):
            channel, kind = found
            handler: Callable[[], Any] = channel.handlers[kind]
            handler()


def _nothing() -> None:
    """Do nothing: the timer only wakes the event loop."""
