"""All that belongs to one process: threads, locks, and what was seen of deliveries.

A fork copies neither threads nor the use of locks. So a child process forgets the engine of its
parent, and makes its own when it first needs one; only the copy of the flags is taken along.
"""

from __future__ import annotations

import logging
import sys
from typing import Callable

from .delivery import Delivery
from .held import Done, Held
from .keep import Keeper
from .options import Options
from .pace import Pace
from .read import Reader
from .refetch import Refetcher
from .replay import Seen
from .store import Shelf

# How long `close` waits for a thread, in seconds. A hanging store may hold one up.
PATIENCE = 2.0


class Engine:
    """The threads of one receiver in one process."""

    def __init__(
        self, options: Options, held: Held, shelf: Shelf | None, tell: Callable[[], None]
    ) -> None:
        self.held = held
        self.seen = Seen()
        self._logger: logging.Logger = options.logger
        reader = Reader(options.url, options.client_key, options.read_timeout, options.tls)
        pace = Pace(options.poll_seconds)
        self._refetcher = Refetcher(reader, held, pace, options.logger)
        self._keeper = Keeper(held, shelf, tell, options.logger)

    def start(self) -> None:
        """Begins. A process that cannot have more threads goes on with what it holds."""
        try:
            self._keeper.start()
            self._refetcher.start()
        except RuntimeError as error:
            if not sys.is_finalizing():
                self._logger.warning("flags are not kept up to date: %s", error)

    def expect(self, delivery: Delivery, done: Done) -> Done:
        """Fetches what `delivery` speaks of; `done` is called when it is held, or at the end.

        Returns what ends the wait.
        """
        cancel = self.held.expect(delivery.updated_at, done)
        self._refetcher.want(delivery.updated_at, delivery.revision)
        return cancel

    def close(self) -> None:
        """Ends the threads, and lets those go who wait."""
        self._refetcher.close(PATIENCE)
        self._keeper.close(PATIENCE)
        self.held.close()
