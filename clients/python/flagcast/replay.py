"""Which attempts have been here already, so that a recorded one is refused.

An attempt is known by its id and its time: another try of the gateway has the same id and a new
time, and is no replay. What is too old to be taken anyway is forgotten, and there is a limit.
Each process remembers what came to it. A recording that is played to another one is genuine and
of now, and changes nothing: what it speaks of is held.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from .signature import TOLERANCE, Attempt

# Only the gateway can fill this, one delivery at a time.
MOST = 10_000


class Seen:
    """The attempts of the last minutes. Safe to use from several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        # In the order in which they came, each with the time from which it may be forgotten.
        self._attempts: OrderedDict[Attempt, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: Attempt, now: float) -> bool:
        """Whether this attempt is new. `now` is in Unix seconds."""
        with self._lock:
            self._forget(now)
            if attempt in self._attempts:
                return False
            # One that is ahead of our clock can be played until it is too old: hence twice.
            self._attempts[attempt] = now + 2 * TOLERANCE
            return True

    def _forget(self, now: float) -> None:
        while self._attempts:
            forget_at = next(iter(self._attempts.values()))
            if forget_at >= now and len(self._attempts) < self._most:
                return
            self._attempts.popitem(last=False)
