"""The world of a receiver: a gateway that can be told what to answer, and deliveries signed as the
gateway signs them. Nothing here sleeps for luck: waits have a condition and a deadline."""

import base64
import hashlib
import hmac
import http.client
import io
import json
import logging
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from flagcast import Receiver

CLIENT_KEY = "Nb8dN5kHPYDzuYaQvGx3aW"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()

# How long something may take that happens within a moment.
SOON = 20


def eventually(what, check):
    """Asks `check` until its answer is true, and returns it."""
    deadline = time.monotonic() + SOON
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SOON} s: {what}")
        time.sleep(0.005)


def set_of(revision, updated_at=None, **flags):
    """A flag set as the gateway answers it; a flag is `(enabled, value)`."""
    return {
        "environment": "production",
        "revision": revision,
        "updated_at": float(revision) if updated_at is None else updated_at,
        "flags": {
            name.replace("_", "-"): {"enabled": enabled, "value": value}
            for name, (enabled, value) in flags.items()
        },
    }


class Gateway:
    """Answers reads of flags with `state`, or as `script` says, and keeps a ledger."""

    def __init__(self, state=None, tls=None):
        self._tls = tls
        self.state = state or set_of(1, dark_mode=(False, None), banner=(True, "hello"))
        # Each is called with the handler, once, in the place of an answer.
        self.script = []
        # Path and headers of every read.
        self.reads = []
        # While it is not set, answers wait.
        self.gate = threading.Event()
        self.gate.set()
        self._start(0)

    def _start(self, port):
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                gateway.reads.append((self.path, dict(self.headers)))
                answer = gateway.script.pop(0) if gateway.script else gateway.answer
                gateway.gate.wait(SOON)
                answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """Receivers may go in the middle of an answer."""

        self._server = Server(("127.0.0.1", port), Handler)
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def stop(self):
        """Refuses connections from now on."""
        self._server.shutdown()
        self._server.server_close()

    def restart(self):
        """Listens again where it was."""

        def listens():
            try:
                self._start(self.port)
            except OSError:
                # Somebody's outgoing connection may hold the port for an instant.
                return False
            return True

        eventually("the gateway listens again", listens)

    def answer(self, handler):
        """As the gateway answers: 404 for a revision that is not there yet, 304 for what is known."""
        state = self.state
        _, _, wanted = handler.path.partition("?rev=")
        etag = f'"{state["revision"]}-{state["updated_at"]}"'
        if wanted and int(wanted) > state["revision"]:
            reply(handler, 404, b"{}", {"Cache-Control": "public, max-age=1"})
        elif not wanted and handler.headers.get("If-None-Match") == etag:
            reply(handler, 304, b"", {"ETag": etag})
        else:
            reply(handler, 200, json.dumps(state).encode(), {"ETag": etag})

    def paths(self):
        """What was asked, without what all have in common."""
        return [path.rpartition("/flags")[2] for path, _ in self.reads]


def reply(handler, status, body, headers=None):
    handler.send_response(status)
    for name, value in {"Content-Length": len(body), **(headers or {})}.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def message(revision, updated_at=None, type="environment.updated", **data):
    """The body of a delivery."""
    data = {
        "project": "web",
        "environment": "production",
        "client_key": CLIENT_KEY,
        "revision": revision,
        "updated_at": float(revision) if updated_at is None else updated_at,
        "changed": ["dark-mode"],
        # Never to be asked.
        "flags_url": "http://127.0.0.1:1/stolen",
        **data,
    }
    return json.dumps({"type": type, "timestamp": "2026-11-28T08:00:00Z", "data": data}).encode()


def sign(secret, name, timestamp, body):
    """One entry of `webhook-signature`."""
    key = base64.b64decode(secret[len("whsec_") :])
    content = f"{name}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


counter = iter(range(1, 1_000_000))


def signed(body, name=None, timestamp=None, secrets=(SECRET,)):
    """The headers of a delivery of `body`."""
    name = name or f"msg_{next(counter)}"
    timestamp = int(time.time()) if timestamp is None else timestamp
    signatures = " ".join(sign(secret, name, timestamp, body) for secret in secrets)
    return {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures,
    }


class Reply:
    """What a receiver answered."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.json = json.loads(body) if body else None

    @property
    def error(self):
        return self.json["error"]

    @property
    def applied(self):
        return self.headers.get("x-flagcast-applied-revision")


def post_wsgi(app, body, headers, method="POST", **environ):
    """Sends a request to a WSGI app, in this process; both keep to the rules, or it raises."""
    environ = {"REQUEST_METHOD": method, "wsgi.input": io.BytesIO(body), **environ}
    for name, value in (
        ("CONTENT_LENGTH", str(len(body))),
        ("QUERY_STRING", ""),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/"),
    ):
        environ.setdefault(name, value)
    setup_testing_defaults(environ)
    for name, value in headers.items():
        if name != "content-type":
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    said = []
    parts = validator(app)(environ, lambda status, headers, *_: said.append((status, headers)))
    answer = b"".join(parts)
    parts.close()
    status, headers = said[0]
    return Reply(int(status.split()[0]), headers, answer)


async def post_asgi(app, body, headers, method="POST", path="/", chunk=None, more=(), **scope):
    """Sends a request to an ASGI app, in this process, in chunks of `chunk` bytes."""
    step = chunk or max(len(body), 1)
    parts = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [
            (name.encode(), value.encode("latin-1")) for name, value in [*headers.items(), *more]
        ],
        **scope,
    }
    sent = []

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(event):
        sent.append(event)

    await app(scope, receive, send)
    start, end = sent
    assert start["type"] == "http.response.start" and end["type"] == "http.response.body", sent
    listed = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Reply(start["status"], listed, end["body"])


def ask(port, method, path, body=None, headers=None):
    """A request over HTTP to an app that runs somewhere."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()


class WithWorld(unittest.TestCase):
    """Tests with a gateway; receivers are closed at the end."""

    def setUp(self):
        self.gateway = Gateway()
        self.addCleanup(self.gateway.stop)
        self.addCleanup(self.gateway.gate.set)
        # What is logged is looked at where it matters, and is not for the terminal.
        self.logger = logging.getLogger(f"test {self.id()}")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self.log = []
        handler = logging.Handler()
        handler.emit = lambda record: self.log.append(record)
        self.logger.addHandler(handler)
        self.addCleanup(self.no_fault_of_ours)

    def no_fault_of_ours(self):
        for record in self.log:
            self.assertNotIn("unexpected", record.getMessage())

    def receiver(self, **options):
        """A receiver of the gateway, with a poll only when a test is about it."""
        options = {"url": self.gateway.url, "client_key": CLIENT_KEY, "secret": SECRET, **options}
        options.setdefault("logger", self.logger)
        options.setdefault("poll_seconds", 0)
        receiver = Receiver(**options)
        self.addCleanup(receiver.close)
        return receiver

    def ready(self, **options):
        """A receiver that has read once."""
        receiver = self.receiver(**options)
        self.assertTrue(receiver.wait_ready(SOON))
        return receiver

    def deliver(self, receiver, revision, updated_at=None, **how):
        """A genuine delivery to the WSGI app."""
        body = message(revision, updated_at)
        return post_wsgi(receiver.wsgi, body, signed(body, **how))

    def warnings(self):
        return [record.getMessage() for record in self.log if record.levelno >= logging.WARNING]
