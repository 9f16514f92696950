"""The copy in use: who may replace it, who looks at it, and who waits for a newer one.

It is one reference. Whoever looks flags up reads it without a lock, and has a whole flag set; the
lock is between those who bring newer copies and those who wait for them.
"""

from __future__ import annotations

import sys
import threading
from typing import Callable

from .copy import NOTHING, Copy

Done = Callable[[], None]

# Older than every real copy, newer than `NOTHING`.
ANYTHING = -sys.float_info.max


class Held:
    """The copy in use, `NOTHING` at first. Safe to use from several threads."""

    def __init__(self, copy: Copy = NOTHING) -> None:
        self.copy = copy
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: list[tuple[float, Done]] = []
        self._followers: list[Done] = []

    def has(self, updated_at: float) -> bool:
        """Whether what is held is at least of this instant."""
        return self.copy.updated_at >= updated_at

    def swap(self, copy: Copy) -> bool:
        """Takes `copy` if it is newer.

        Newer is what has the later `updated_at`, not the higher revision: when the gateway's store
        is restored from a backup, revisions go back and time goes on.
        """
        with self._lock:
            if not copy.updated_at > self.copy.updated_at:
                return False
            self.copy = copy
            done = [wait for wait in self._waiting if wait[0] <= copy.updated_at]
            self._waiting = [wait for wait in self._waiting if wait[0] > copy.updated_at]
        for _, tell in done:
            tell()
        for tell in self._followers:
            tell()
        return True

    def follow(self, tell: Done) -> None:
        """Calls `tell` after each swap, on the thread that swaps."""
        self._followers.append(tell)

    def expect(self, updated_at: float, done: Done) -> Done:
        """Calls `done` once, as soon as something of this instant is held, or at the end.

        Returns what ends the wait.
        """
        wait = (updated_at, done)
        with self._lock:
            waits = not self._closed and not self.has(updated_at)
            if waits:
                self._waiting.append(wait)
        if not waits:
            done()

        def cancel() -> None:
            with self._lock:
                if wait in self._waiting:
                    self._waiting.remove(wait)

        return cancel

    def close(self) -> None:
        """Lets everybody go who waits. What is held stays."""
        with self._lock:
            self._closed = True
            done, self._waiting = self._waiting, []
        for _, tell in done:
            tell()
