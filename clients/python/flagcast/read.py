"""One read of the flag set over HTTP, with an end: no answer takes longer than the limit, however
slowly it drips, and none is larger than the limit.

It always goes to the gateway that was configured, never to an address from a delivery, and it
follows no redirects. A proxy in `HTTPS_PROXY` or `HTTP_PROXY` is used, as by `urllib` in general.
"""

from __future__ import annotations

import functools
import http.client
import re
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from typing import Any, NamedTuple

from .copy import Copy, NotACopy, from_answer

# A thousand flags are about 60 kB.
LARGEST = 32 * 1024 * 1024

USER_AGENT = "Flagcast-Python/0.1.0"


class ReadFailed(Exception):
    """Nothing came of a read. `wait` is how many seconds the answer asks to wait, 0 if it does not."""

    def __init__(self, error: str, wait: float = 0.0) -> None:
        super().__init__(error)
        self.wait = wait


class Ask(NamedTuple):
    """What to ask for."""

    # At least this revision; caches may keep the answer for long.
    revision: int | None = None
    # Nothing, if this is still the newest.
    etag: str | None = None
    # Past all caches.
    fresh: bool = False


class Reader:
    """Reads the flags of one environment, one read at a time."""

    def __init__(
        self, url: str, client_key: str, timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        """`url` is the gateway's; `timeout` is in seconds, for a read as a whole."""
        key = urllib.parse.quote(client_key, safe="")
        self._url = f"{url}/sdk/v1/environments/{key}/flags"
        self._timeout = timeout
        self._tls = tls
        self._deadline: _Deadline | None = None
        self._closed = False

    def read(self, ask: Ask) -> Copy | None:
        """What the gateway has; `None` when `ask.etag` is still the newest.

        Raises `ReadFailed` for everything else.
        """
        url = self._url if ask.revision is None else f"{self._url}?rev={ask.revision}"
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        if ask.etag:
            headers["If-None-Match"] = ask.etag
        if ask.fresh:
            headers["Cache-Control"] = "no-cache"
        request = urllib.request.Request(url, headers=headers)
        deadline = self._deadline = _Deadline(self._timeout)
        if self._closed:
            raise ReadFailed("closed")
        try:
            return self._open(request, deadline)
        except urllib.error.HTTPError as answer:
            with answer:
                if answer.code == 304 and ask.etag:
                    return None
                raise ReadFailed(_refusal(answer.code, url), _wait(answer.headers)) from None
        # `ValueError` is what `http.client` makes of some garbled answers.
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Whatever it looks like: half an answer may have been taken for a whole one.
            if deadline.is_over:
                raise ReadFailed(f"{url} took longer than {self._timeout:g} s") from None
            if isinstance(error, NotACopy):
                raise ReadFailed(f"{url} answered with something else: {error}") from None
            reason = getattr(error, "reason", error)
            raise ReadFailed(f"{url} cannot be read: {type(error).__name__}: {reason}") from None
        finally:
            deadline.cancel()

    def close(self) -> None:
        """Ends a read that goes on, and refuses further ones."""
        self._closed = True
        if self._deadline:
            self._deadline.cut()

    def _open(self, request: urllib.request.Request, deadline: _Deadline) -> Copy:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        opener = urllib.request.build_opener(
            _NoRedirects, _Plain(deadline), _Secure(deadline, self._tls)
        )
        with opener.open(request, timeout=self._timeout) as answer:
            body = answer.read(LARGEST + 1)
            if len(body) > LARGEST:
                raise NotACopy(f"it is larger than {LARGEST} bytes")
            return from_answer(body, answer.headers.get("ETag"))


class _Deadline:
    """Shuts the sockets of a read when its time is over; a time-out of sockets is for each byte."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.daemon = True
        self._timer.name = "flagcast-deadline"
        self._timer.start()

    def watch(self, sock: socket.socket) -> None:
        """Takes the socket of a connection that was made."""
        with self._lock:
            self._socket = sock
            if self.is_over:
                _shut(sock)

    def cut(self) -> None:
        """Ends the read now."""
        with self._lock:
            self.is_over = True
            if self._socket:
                _shut(self._socket)

    def cancel(self) -> None:
        """The read has ended."""
        self._timer.cancel()
        with self._lock:
            self._socket = None


def _shut(sock: socket.socket) -> None:
    try:
        # Not the method of TLS sockets: another thread is reading from this one.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        # It is shut already.
        pass


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, deadline: _Deadline, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.watch(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, deadline: _Deadline, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.watch(self.sock)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._connection: Any = functools.partial(_PlainConnection, deadline)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._connection: Any = functools.partial(_SecureConnection, deadline, context=tls)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._connection, req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _refusal(status: int, url: str) -> str:
    if status == 404:
        return f"{url} answered 404: not there yet, or the client key is wrong"
    if 300 <= status < 400:
        return f"{url} answered {status}: redirects are not followed, configure the final address"
    return f"{url} answered {status}"


def _wait(headers: Message[str, str]) -> float:
    """How many seconds an answer asks to wait: a cache would give the same answer until then."""
    after = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", after):
        return float(after)
    age = re.search(r"\bmax-age=([0-9]{1,9})", headers.get("Cache-Control", ""))
    return float(age.group(1)) if age else 0.0
