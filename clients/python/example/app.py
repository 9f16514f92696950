"""A server app with flags, with nothing but Python: run it with `python example/app.py`.

It is told what to do by its environment: `FLAGCAST_URL`, `FLAGCAST_CLIENT_KEY`,
`FLAGCAST_WEBHOOK_SECRET` (several, separated by commas, while a secret is rotated),
`FLAGCAST_COPY` (a file), `FLAGCAST_POLL_SECONDS` and `PORT` (0 for a free one). Webhooks come to
`/flagcast`, `/flags/<key>` shows a flag, and `/health` says that the app is there.
"""

import json
import logging
import os
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

# An app that has installed the package does without this.
sys.path.insert(0, str(Path(__file__).parents[1]))

from flagcast import Receiver  # noqa: E402

flags = Receiver(
    url=os.environ["FLAGCAST_URL"],
    client_key=os.environ["FLAGCAST_CLIENT_KEY"],
    secret=os.environ["FLAGCAST_WEBHOOK_SECRET"].split(","),
    store=os.environ.get("FLAGCAST_COPY"),
    poll_seconds=float(os.environ.get("FLAGCAST_POLL_SECONDS", "300")),
)


def app(environ, start_response):
    """The app itself, which knows nothing of webhooks."""
    status, body = page(environ["REQUEST_METHOD"], environ["PATH_INFO"])
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


def page(method, path):
    """A status line and what is shown."""
    if path != "/health" and not path.startswith("/flags/"):
        return "404 Not Found", {"error": "there is no such page"}
    if method != "GET":
        return "405 Method Not Allowed", {"error": "pages are for GET"}
    if path == "/health":
        return "200 OK", {}
    key = path[len("/flags/") :]
    shown = {
        "enabled": flags.enabled(key),
        "value": flags.value(key),
        "revision": flags.revision,
    }
    return "200 OK", shown


class Server(ThreadingMixIn, WSGIServer):
    """Answers while a webhook waits for its flags."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    flags.start()
    mounted = flags.wsgi_middleware(app, path="/flagcast")
    port = int(os.environ.get("PORT", "8000"))
    with make_server("127.0.0.1", port, mounted, Server, Quiet) as server:
        print(f"listening {server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
