"""The receiver in WSGI's words: an app for one address, and a middleware for apps without mounts."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Callable, Protocol

from .answer import REASONS, Answer, Refused
from .delivery import LARGEST, Delivery, accept, admit, admit_length, refuse, settle
from .engine import Engine
from .options import Options

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class Process(Protocol):
    """What an app needs of its receiver."""

    @property
    def options(self) -> Options:
        """The receiver's options."""

    def engine(self) -> Engine:
        """The engine of this process, started."""


class WsgiReceiver:
    """Answers deliveries, whatever the path."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        answer = self._answer(environ)
        reason = REASONS.get(answer.status, "Error")
        start_response(f"{answer.status} {reason}", answer.all_headers())
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    def _answer(self, environ: Environ) -> Answer:
        engine, options = self._process.engine(), self._process.options
        try:
            admit(environ["REQUEST_METHOD"], environ.get("CONTENT_LENGTH"))
            delivery = accept(options, engine.seen, _header_of(environ), _body(environ))
        except Refused as refused:
            return refuse(refused, engine.held)
        if not engine.held.has(delivery.updated_at):
            _wait(engine, delivery, options.answer_timeout)
        return settle(delivery, engine.held)


class WsgiMiddleware:
    """Answers deliveries at one path, and passes everything else on to an app."""

    def __init__(self, process: Process, receiver: WSGIApp, app: WSGIApp, path: str) -> None:
        self._process = process
        self._receiver = receiver
        self._app = app
        self._path = path

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == self._path:
            return self._receiver(environ, start_response)
        # Whatever the request is for, the process serves now, and may soon ask for flags.
        self._process.engine()
        return self._app(environ, start_response)


def _wait(engine: Engine, delivery: Delivery, timeout: float) -> None:
    done = threading.Event()
    cancel = engine.expect(delivery, done.set)
    try:
        done.wait(timeout)
    finally:
        cancel()


def _header_of(environ: Environ) -> Callable[[str], str | None]:
    def header(name: str) -> str | None:
        value: str | None = environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value

    return header


def _body(environ: Environ) -> bytes:
    """The body's bytes; one byte more than is allowed when it is too large."""
    source = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    if length:
        left = int(length)
    elif environ.get("wsgi.input_terminated"):
        # Sent in chunks, by a server that says where they end.
        left = LARGEST + 1
    else:
        left = 0
    parts: list[bytes] = []
    while left > 0:
        part = source.read(left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    if length and left:
        raise Refused(400, "the body is shorter than its content-length")
    body = b"".join(parts)
    admit_length(len(body))
    return body
