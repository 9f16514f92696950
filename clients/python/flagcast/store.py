"""Where the last known copy is kept, so that an app starts with flags when Flagcast is down.

A path is a file. An app may give an object of its own instead, with `load` and `save`. Faults of
a store are logged and harm nothing: what is held in memory goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import Protocol

from .copy import Copy, NotACopy, from_stored, to_stored


class Store(Protocol):
    """What an app may give. It may also have `mark() -> Hashable`; see `FileStore.mark`."""

    def load(self) -> str | bytes | None:
        """The text that was saved last; `None` when there is none."""

    def save(self, text: str) -> None:
        """Keeps the text. A reader must never see half of it."""


class FileStore:
    """Keeps the copy in a file that only this user can read. Several processes may share it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def load(self) -> bytes | None:
        """The bytes of the file; `None` when there is no file."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, text: str) -> None:
        """Puts a new file in the place of the old one, so that there is always a whole one."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It is made for its owner alone: mode 0600.
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{self._path.name}.", suffix=".tmp", dir=self._path.parent
        )
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                # Without this, a machine that loses power may keep the name and lose the text.
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def mark(self) -> Hashable:
        """Something cheap that is another after each save, also by another process."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


class Shelf:
    """A store as the rest knows it: it keeps copies of one environment, and never raises."""

    def __init__(self, store: Store, client_key: str, logger: logging.Logger) -> None:
        self._store = store
        self._client_key = client_key
        self._logger = logger
        # `None` for a store without marks: what other processes save there is not noticed.
        self._mark = getattr(store, "mark", None)
        self._last_fault = ""

    @property
    def is_watched(self) -> bool:
        """Whether it can be noticed that another process saved something."""
        return self._mark is not None

    def load(self) -> Copy | None:
        """The copy that was saved last; `None` when there is none that is any good."""
        try:
            text = self._store.load()
            return None if text is None else from_stored(text, self._client_key)
        except NotACopy as error:
            self._fault(f"the stored copy of the flags is ignored: {error}")
        except Exception as error:
            self._fault(f"the stored copy of the flags cannot be read: {error!r}")
        return None

    def save(self, copy: Copy) -> bool:
        """Keeps `copy`, unless something newer is there. Whether it worked."""
        there = self.load()
        if there and there.updated_at >= copy.updated_at:
            return True
        try:
            self._store.save(to_stored(copy, self._client_key))
        except Exception as error:
            self._fault(f"the flags cannot be stored, which only a restart will miss: {error!r}")
            return False
        self._last_fault = ""
        return True

    def mark(self) -> Hashable:
        """What is another after each save; `None` when there is nothing, or it cannot be told."""
        if self._mark is None:
            return None
        try:
            mark: Hashable = self._mark()
        except Exception as error:
            self._fault(f"the stored copy of the flags cannot be looked at: {error!r}")
            return None
        return mark

    def _fault(self, message: str) -> None:
        # The same fault is told once: the store is looked at often.
        if message != self._last_fault:
            self._logger.warning("%s", message)
            self._last_fault = message
