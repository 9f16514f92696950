"""What an app has in its hands: flags to look up, and the doors for webhooks."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Callable, TypeVar

from .asgi import ASGIApp, AsgiMiddleware, AsgiReceiver
from .copy import NOTHING, Flag
from .engine import Engine
from .held import ANYTHING, Held
from .options import Options, StoreOption, check
from .store import Shelf
from .wsgi import WSGIApp, WsgiMiddleware, WsgiReceiver

Default = TypeVar("Default")
Listener = Callable[["Receiver"], None]


class Receiver:
    """Keeps the flags of one environment in memory, up to date by webhooks.

    Make one when the app is loaded, and mount `wsgi` or `asgi`. Its threads begin in each process
    when that process first uses it, also after a fork.
    """

    def __init__(
        self,
        *,
        url: str,
        client_key: str,
        secret: str | Sequence[str],
        store: StoreOption = None,
        poll_seconds: float = 300,
        read_timeout: float = 5,
        answer_timeout: float = 8,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Loads the stored copy, if there is one. README.md has the options.

        Raises `ValueError` or `TypeError` for an option that cannot be.
        """
        self._options = check(
            url,
            client_key,
            secret,
            store,
            poll_seconds,
            read_timeout,
            answer_timeout,
            logger,
            clock,
            tls,
        )
        self._shelf: Shelf | None = None
        stored = None
        if self._options.store is not None:
            self._shelf = Shelf(self._options.store, client_key, self._options.logger)
            stored = self._shelf.load()
        self._held = Held(stored or NOTHING)
        self._engine: Engine | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        # The WSGI app and the ASGI app that answer deliveries, whatever the path.
        self.wsgi: WSGIApp = WsgiReceiver(self)
        self.asgi: ASGIApp = AsgiReceiver(self)
        _receivers.add(self)

    def __repr__(self) -> str:
        options = self._options
        return f"<Receiver {options.url} {options.client_key} revision={self.revision}>"

    # Flags. These read one reference: no lock, no wait, no input or output.

    def enabled(self, flag: str, default: bool = False) -> bool:
        """Whether a flag is on; `default` when it is not known."""
        if self._engine is None:
            self.start()
        found = self._held.copy.flags.get(flag)
        return default if found is None else found.enabled

    def value(self, flag: str, default: Any = None) -> Any:
        """A flag's value, whether it is on or not; `default` when it has none or is not known."""
        if self._engine is None:
            self.start()
        found = self._held.copy.flags.get(flag)
        return default if found is None or found.value is None else found.value

    def flags(self) -> Mapping[str, Flag]:
        """All flags of one revision, by key. The mapping never changes; ask again for news."""
        if self._engine is None:
            self.start()
        return self._held.copy.flags

    @property
    def revision(self) -> int | None:
        """The revision of the flags; `None` while none are known."""
        copy = self._held.copy
        return None if copy is NOTHING else copy.revision

    @property
    def updated_at(self) -> float | None:
        """When that revision was made, in Unix seconds; `None` while no flags are known."""
        copy = self._held.copy
        return None if copy is NOTHING else copy.updated_at

    @property
    def ready(self) -> bool:
        """Whether flags are known, from the gateway or from the stored copy."""
        return self._held.copy is not NOTHING

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until flags are known, `timeout` seconds at most; whether they are."""
        self.start()
        done = threading.Event()
        cancel = self._held.expect(ANYTHING, done.set)
        try:
            done.wait(timeout)
        finally:
            cancel()
        return self.ready

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener(receiver)` after changes, on a thread of its own.

        Changes that follow each other closely may be told as one. Returns what ends it.
        """
        with self._lock:
            self._listeners += (listener,)

        def end() -> None:
            with self._lock:
                # The first that is the same: one that was given twice is called twice.
                kept = list(self._listeners)
                if listener in kept:
                    kept.remove(listener)
                self._listeners = tuple(kept)

        return end

    # Doors.

    def wsgi_middleware(self, app: WSGIApp, path: str = "/flagcast") -> WSGIApp:
        """Wraps a WSGI app: deliveries are answered at `path`, the rest is the app's."""
        return WsgiMiddleware(self, self.wsgi, app, _mount(path))

    def asgi_middleware(self, app: ASGIApp, path: str = "/flagcast") -> ASGIApp:
        """Wraps an ASGI app: deliveries are answered at `path`, the rest is the app's."""
        return AsgiMiddleware(self, self.asgi, app, _mount(path))

    # Life.

    def start(self) -> None:
        """Begins in this process, if it has not begun. Using the receiver does the same."""
        self.engine()

    def close(self) -> None:
        """Ends the threads of this process. The flags stay as they are; deliveries get 503."""
        with self._lock:
            self._closed = True
            engine = self._engine
        if engine:
            engine.close()
        self._held.close()

    @property
    def options(self) -> Options:
        """The options, checked."""
        return self._options

    def engine(self) -> Engine:
        """The threads of this process, started unless the receiver is closed."""
        engine = self._engine
        if engine is not None:
            return engine
        with self._lock:
            if self._engine is None:
                engine = Engine(self._options, self._held, self._shelf, self._tell)
                if not self._closed:
                    engine.start()
                self._engine = engine
            return self._engine

    def _tell(self) -> None:
        for listener in self._listeners:
            try:
                listener(self)
            except Exception:
                self._options.logger.exception("a listener for changes of flags has failed")

    def _forked(self) -> None:
        """In a child process: only the flags are taken along."""
        self._lock = threading.Lock()
        self._held = Held(self._held.copy)
        self._engine = None
        if self._closed:
            self._held.close()


# Those whose threads a child process does not have.
_receivers: weakref.WeakSet[Receiver] = weakref.WeakSet()


def _forget_threads() -> None:
    for receiver in list(_receivers):
        receiver._forked()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _mount(path: str) -> str:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"path: {path!r} does not begin with '/'; give a path like '/flagcast'")
    return path
