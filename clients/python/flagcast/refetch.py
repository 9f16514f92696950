"""Keeps the held copy at least as new as the gateway has told: one thread that reads.

Deliveries say how new the copy must be (`want`); however many there are, there is one read at a
time, for the newest. A slow poll heals what no delivery told. Failures are tried again with
growing waits, and do not end.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple, Protocol

from .copy import Copy
from .held import Held
from .pace import Pace
from .read import Ask, ReadFailed

# A delivery shows that the gateway is there: it ends a longer wait than this, in seconds.
PATIENCE = 2.0


class Reads(Protocol):
    """What `Reader` does."""

    def read(self, ask: Ask) -> Copy | None:
        """What the gateway has, `None` when nothing is newer; raises `ReadFailed`."""

    def close(self) -> None:
        """Ends a read that goes on."""


class Wanted(NamedTuple):
    """How new the copy must become."""

    updated_at: float
    revision: int


class Refetcher:
    """The reading thread and what it is to do next."""

    def __init__(self, reader: Reads, held: Held, pace: Pace, logger: logging.Logger) -> None:
        self._reader = reader
        self._held = held
        self._pace = pace
        self._logger = logger
        self._changed = threading.Condition()
        self._closed = False
        self._wanted: Wanted | None = None
        # Whether a read without a revision is due: the first one, or a poll.
        self._unread = True
        # Whether a read with the revision brought an older set: some cache remembers the time
        # before a restore.
        self._misled = False
        self._failures = 0
        self._retry_at = self._poll_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="flagcast-refetch", daemon=True)

    def start(self) -> None:
        """Begins, with a first read at once."""
        self._thread.start()

    def want(self, updated_at: float, revision: int) -> None:
        """Asks for a copy of at least this instant. Returns at once."""
        with self._changed:
            newer = self._wanted is None or updated_at > self._wanted.updated_at
            if newer:
                self._wanted = Wanted(updated_at, revision)
                self._misled = False
            now = time.monotonic()
            if newer or self._retry_at > now + PATIENCE:
                self._failures = 0
                self._retry_at = now
                self._changed.notify()

    def close(self, timeout: float) -> None:
        """Ends the thread, also in the middle of a read; waits `timeout` seconds for it at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._reader.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed:
                    wait = self._wait()
                    if wait is not None and wait <= 0:
                        break
                    self._changed.wait(wait)
                if self._closed:
                    return
                wanted = self._behind()
                ask = self._ask(wanted)
            try:
                copy = self._reader.read(ask)
            except ReadFailed as failed:
                self._failed(wanted, str(failed), failed.wait)
            except Exception as error:
                # A fault of ours, or of an object that the app gave. The thread must not end.
                self._failed(wanted, f"unexpected {type(error).__name__}: {error}", 0.0)
            else:
                self._came(wanted, copy)

    def _behind(self) -> Wanted | None:
        """What is wanted and not held; under the lock."""
        if self._wanted and self._held.has(self._wanted.updated_at):
            self._wanted = None
        return self._wanted

    def _wait(self) -> float | None:
        """Seconds until the next read, `None` for ever; under the lock."""
        now = time.monotonic()
        if not self._unread and self._pace.polls and self._poll_at <= now:
            self._unread = True
            self._retry_at = now
        if self._unread or self._behind():
            return self._retry_at - now
        return self._poll_at - now if self._pace.polls else None

    def _ask(self, wanted: Wanted | None) -> Ask:
        if wanted is None:
            return Ask(etag=self._held.copy.etag)
        return Ask(fresh=True) if self._misled else Ask(revision=wanted.revision)

    def _came(self, asked: Wanted | None, copy: Copy | None) -> None:
        """A read worked; it may still have brought less than what is wanted."""
        if copy and self._held.swap(copy):
            self._logger.info("flags are at revision %d", copy.revision)
        with self._changed:
            self._unread = False
            self._poll_at = time.monotonic() + self._pace.until_poll()
            wanted = self._behind()
            if wanted is None or wanted != asked:
                self._failures = 0
                self._retry_at = time.monotonic()
                return
            self._misled = not self._misled
        self._failed(asked, f"the answer is older than revision {wanted.revision}", 0.0)

    def _failed(self, asked: Wanted | None, error: str, wait: float) -> None:
        with self._changed:
            if self._closed:
                return
            overtaken = self._wanted != asked and self._behind() is not None
            self._failures = 0 if overtaken else self._failures + 1
            pause = 0.0 if overtaken else self._pace.until_retry(self._failures, wait)
            self._retry_at = time.monotonic() + pause
            failures = self._failures
        # Once in a row of failures: a gateway that is down fills no log.
        level = logging.WARNING if failures == 4 else logging.DEBUG
        self._logger.log(level, "flags cannot be read, tried again in %.1f s: %s", pause, error)
