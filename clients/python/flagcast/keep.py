"""What follows a swap, off the path of requests: the copy is stored, and listeners are called.

The same thread watches the store. A delivery reaches one process of a server; the others learn of
it here, because the one that fetched has stored what it got.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable
from typing import Callable

from .copy import NOTHING
from .held import Held
from .store import Shelf

# How often the store is looked at, in seconds. To look at a file is one `stat`.
WATCH_SECONDS = 0.5

# When saving is tried again after it failed, in seconds.
RETRY_SECONDS = 60.0


class Keeper:
    """The thread that stores, watches and tells."""

    def __init__(
        self,
        held: Held,
        shelf: Shelf | None,
        tell: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._held = held
        self._shelf = shelf
        self._tell = tell
        self._logger = logger
        self._woken = threading.Condition()
        self._swapped = False
        self._closed = False
        # When to try again to save what could not be saved.
        self._save_at: float | None = None
        # Nothing was seen yet, so the first look reads the store: the copy of a process that was
        # forked may be old.
        self._seen: Hashable = self
        self._thread = threading.Thread(target=self._run, name="flagcast-copy", daemon=True)
        held.follow(self._swap)

    def start(self) -> None:
        """Begins with a look at the store."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Ends the thread after it has stored what is held; waits `timeout` seconds at most."""
        with self._woken:
            self._closed = True
            self._woken.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _swap(self) -> None:
        with self._woken:
            self._swapped = True
            self._woken.notify()

    def _run(self) -> None:
        while True:
            with self._woken:
                closed, swapped = self._closed, self._swapped
                self._swapped = False
            try:
                # At the end in any case: who waits for a swap is told of it before this thread is.
                if swapped or closed:
                    self._save()
                    # So that the next look sees whether it is there, and not only whether the
                    # store is as it was before.
                    self._seen = self
                if swapped:
                    self._tell()
                if not closed:
                    self._look()
            except Exception:
                # A fault of ours. The thread must not end.
                self._logger.exception("what follows a change of the flags has failed")
            if closed:
                return
            with self._woken:
                if not self._swapped and not self._closed:
                    self._woken.wait(self._pause())

    def _pause(self) -> float | None:
        """Until the next look; `None` when there is nothing to look at."""
        pauses = []
        if self._shelf and self._shelf.is_watched:
            pauses.append(WATCH_SECONDS)
        if self._save_at is not None:
            pauses.append(max(0.0, self._save_at - time.monotonic()))
        return min(pauses, default=None)

    def _save(self) -> None:
        if self._shelf and self._held.copy is not NOTHING:
            saved = self._shelf.save(self._held.copy)
            self._save_at = None if saved else time.monotonic() + RETRY_SECONDS

    def _look(self) -> None:
        """Takes a newer copy from the store, and gives it ours when it has none or an older one."""
        if not self._shelf:
            return
        if self._save_at is not None and self._save_at <= time.monotonic():
            self._save()
        mark = self._shelf.mark()
        if mark == self._seen:
            return
        self._seen = mark
        held, there = self._held.copy, self._shelf.load()
        if there and self._held.swap(there):
            self._logger.info("flags are at revision %d, from the stored copy", there.revision)
        # Two that save at once may leave the older one. What cannot be read is left alone: two
        # apps with one file would otherwise write for ever.
        elif there.updated_at < held.updated_at if there else mark is None:
            self._save()
