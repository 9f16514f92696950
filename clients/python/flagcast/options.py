"""What a receiver is told when it is made, checked once. A message says what is wrong, by which
rule, and what to do; it never quotes a secret."""

from __future__ import annotations

import logging
import math
import os
import ssl
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Union

from .signature import Secrets
from .store import FileStore, Store

StoreOption = Union[str, "os.PathLike[str]", Store, None]


class Options(NamedTuple):
    """Options that are right."""

    # Without a `/` at its end.
    url: str
    client_key: str
    secrets: Secrets
    store: Store | None
    # 0 for no poll.
    poll_seconds: float
    read_timeout: float
    answer_timeout: float
    logger: logging.Logger
    clock: Callable[[], float]
    tls: ssl.SSLContext | None


def check(
    url: str,
    client_key: str,
    secret: str | Sequence[str],
    store: StoreOption,
    poll_seconds: float,
    read_timeout: float,
    answer_timeout: float,
    logger: logging.Logger | None,
    clock: Callable[[], float] | None,
    tls: ssl.SSLContext | None,
) -> Options:
    """Raises `ValueError` or `TypeError` for what cannot be."""
    return Options(
        url=_url(url),
        client_key=_client_key(client_key),
        secrets=Secrets(secret),
        store=_store(store),
        poll_seconds=_seconds("poll_seconds", poll_seconds, zero="0 to never poll"),
        read_timeout=_seconds("read_timeout", read_timeout),
        answer_timeout=_seconds("answer_timeout", answer_timeout),
        logger=logger or logging.getLogger("flagcast"),
        clock=clock or time.time,
        tls=tls,
    )


def _url(url: Any) -> str:
    advice = "give the gateway's base URL, like 'https://flags.example.com'"
    if not isinstance(url, str):
        raise TypeError(f"url: it is a {type(url).__name__}, not a str; {advice}")
    try:
        parts = urllib.parse.urlsplit(url)
        # Reading the port checks it.
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(f"url: it is not an address; {advice}") from None
    # A name or password before the host is a secret, and is not quoted.
    if "@" in parts.netloc:
        raise ValueError(f"url: names and passwords are not sent; {advice}")
    if not right:
        raise ValueError(f"url: {url!r} is not an http or https address; {advice}")
    if parts.query or parts.fragment or any(ord(letter) <= 32 for letter in url):
        raise ValueError(f"url: {url!r} has a query, a fragment or a blank; {advice}")
    return url.rstrip("/")


def _client_key(client_key: Any) -> str:
    if not isinstance(client_key, str) or not client_key:
        raise ValueError(
            "client_key: it is empty or no text; give the client key of the environment, which "
            "its page in the gateway shows"
        )
    if client_key.startswith("ser."):
        raise ValueError(
            "client_key: it begins with 'ser.', so it is a server key; "
            "give the client key of the environment"
        )
    return client_key


def _store(store: Any) -> Store | None:
    if store is None:
        return None
    if isinstance(store, (str, os.PathLike)):
        if not os.fspath(store) or os.path.isdir(store):
            raise ValueError(
                f"store: {os.fspath(store)!r} is no file; give the path of a file, like "
                "'/var/lib/my-app/flags.json'"
            )
        return FileStore(store)
    if callable(getattr(store, "load", None)) and callable(getattr(store, "save", None)):
        given: Store = store
        return given
    raise TypeError(
        f"store: a {type(store).__name__} is no store; "
        "give a path, or an object with `load()` and `save(text)`"
    )


def _seconds(name: str, seconds: Any, zero: str = "") -> float:
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        allowed = (
            f"a positive number of seconds, or {zero}" if zero else "a positive number of seconds"
        )
        raise ValueError(f"{name}: {seconds!r} is not allowed; give {allowed}")
    return float(seconds)
