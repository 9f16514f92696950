"""Real frameworks on real servers: one delivery reaches every process of the app."""

import os
import re
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .world import (
    CLIENT_KEY,
    OLD_SECRET,
    SECRET,
    SOON,
    WithWorld,
    ask,
    eventually,
    message,
    set_of,
    signed,
)

FOLDER = Path(__file__).parents[1]


class Server:
    """A server of somebody else as a child process, on a free port."""

    def __init__(self, test, arguments, environment):
        clean = {name: value for name, value in os.environ.items() if "FLAGCAST" not in name}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=FOLDER,
            env={**clean, **environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        threading.Thread(target=self._collect, daemon=True).start()
        test.addCleanup(self.stop)
        self.port = eventually(f"{arguments} listens", self._port)

    @property
    def process_id(self):
        return self._process.pid

    def _collect(self):
        for line in self._process.stdout:
            self.lines.append(line)

    def _port(self):
        if self._process.poll() is not None:
            raise AssertionError("".join(self.lines))
        found = re.search(r"http://127\.0\.0\.1:(\d+)|^listening (\d+)$", "".join(self.lines), re.M)
        return found and int(found.group(1) or found.group(2))

    def stop(self):
        """Ends it as a service manager does."""
        self._process.terminate()
        try:
            self._process.wait(SOON)
        finally:
            self._process.kill()
            self._process.stdout.close()


class Frameworks(WithWorld):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.environment = {
            "FLAGCAST_URL": self.gateway.url,
            "FLAGCAST_CLIENT_KEY": CLIENT_KEY,
            "FLAGCAST_WEBHOOK_SECRET": SECRET,
            "FLAGCAST_COPY": os.path.join(directory.name, "flags.json"),
        }

    def gunicorn(self, app, *options):
        arguments = ["-m", "gunicorn", "--bind=127.0.0.1:0", "--no-control-socket"]
        # A worker that is asked to end while it is being forked may not hear it.
        arguments += ["--graceful-timeout=3", *options]
        return Server(self, [*arguments, f"tests.apps.{app}"], self.environment)

    def uvicorn(self, app, *options):
        arguments = ["-m", "uvicorn", "--host=127.0.0.1", "--port=0", *options]
        return Server(self, [*arguments, f"tests.apps.{app}"], self.environment)

    def pages(self, server):
        """What a few requests at once are shown; several processes take their part."""
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, server.port, "GET", "/page") for _ in range(8)]
            return [answer.result().json for answer in asked]

    def all_show(self, server, revision, processes=1):
        """Waits until so many processes were seen, and all of them show `revision`."""
        seen = {}

        def check():
            try:
                pages = self.pages(server)
            except OSError:
                # Some servers say where they listen before they do.
                return False
            for page in pages:
                seen[page["process"]] = page["revision"]
            return len(seen) == processes and set(seen.values()) == {revision}

        eventually(f"{processes} processes show revision {revision}", check)

    def follows(self, server, processes=1, path="/flagcast"):
        """The story of all servers: a first read, deliveries, and what is refused."""
        self.all_show(server, 1, processes)
        for revision in (2, 3):
            self.gateway.state = set_of(revision, dark_mode=(True, None))
            body = message(revision)
            answer = ask(server.port, "POST", path, body, signed(body))
            self.assertEqual((answer.status, answer.applied), (200, str(revision)), server.lines)
            self.all_show(server, revision, processes)
        forged = {**signed(body), "webhook-signature": "v1,AAAA"}
        self.assertEqual(ask(server.port, "POST", path, body, forged).status, 401)
        self.assertEqual(ask(server.port, "GET", path).status, 405)
        # In chunks, as some proxies send it on.
        answer = ask(server.port, "POST", path, iter([body[:9], body[9:]]), signed(body))
        self.assertEqual(answer.status, 200)
        large = b"x" * (256 * 1024 + 1)
        self.assertEqual(ask(server.port, "POST", path, large, signed(large)).status, 413)

    def test_flask_in_gunicorn(self):
        self.follows(self.gunicorn("flask_app:app", "--workers=2"), 2)

    def test_flask_in_gunicorn_loaded_before_the_fork(self):
        server = self.gunicorn("flask_app:app", "--workers=3", "--preload")
        self.follows(server, 3)
        # The parent only forks: it has no threads and reads nothing.
        self.assertEqual(len(os.listdir(f"/proc/{server.process_id}/task")), 1)
        self.assertEqual(self.gateway.paths().count(""), 3)

    def test_flask_in_gunicorn_with_threads(self):
        self.follows(self.gunicorn("flask_app:app", "--workers=2", "--threads=4", "--preload"), 2)

    def test_flask_in_gunicorn_without_a_file(self):
        del self.environment["FLAGCAST_COPY"]
        self.environment["FLAGCAST_POLL_SECONDS"] = "0.1"
        self.follows(self.gunicorn("flask_app:app", "--workers=2", "--preload"), 2)

    def test_workers_that_are_replaced(self):
        """A worker that is killed comes back with the newest copy, though the gateway is down."""
        server = self.gunicorn("flask_app:app", "--workers=2", "--preload")
        self.follows(server, 2)
        self.gateway.stop()
        old = {page["process"] for page in self.pages(server)}
        for process in old:
            os.kill(process, 9)

        new = {}

        def replaced():
            try:
                pages = self.pages(server)
            except OSError:
                return False
            new.update({page["process"]: page["revision"] for page in pages})
            for process in old:
                new.pop(process, None)
            return len(new) == 2 and set(new.values()) == {3}

        eventually("new workers have the stored copy", replaced)
        self.gateway.restart()

    def test_django_in_gunicorn(self):
        self.follows(self.gunicorn("django_app:wsgi", "--workers=2", "--preload"), 2)

    def test_django_in_uvicorn(self):
        self.follows(self.uvicorn("django_app:asgi"))

    def test_starlette_in_uvicorn(self):
        self.follows(self.uvicorn("starlette_app:app"))

    def test_fastapi_in_uvicorn_with_workers(self):
        self.follows(self.uvicorn("fastapi_app:app", "--workers=2"), 2)

    def test_fastapi_begins_with_the_server(self):
        """The receiver reads when the app starts, before anybody asks."""
        self.uvicorn("fastapi_app:app")
        eventually("it reads", lambda: self.gateway.reads)

    def test_fastapi_with_a_mounted_receiver(self):
        self.follows(self.uvicorn("mounted:app"), path="/flagcast/")

    def test_fastapi_in_gunicorn(self):
        worker = "--worker-class=asgi"
        self.follows(self.gunicorn("fastapi_app:app", worker, "--workers=2", "--preload"), 2)

    def test_the_example(self):
        """`example/app.py` needs nothing but Python. It goes on, and starts, without the gateway."""
        self.environment["FLAGCAST_WEBHOOK_SECRET"] = f"{OLD_SECRET},{SECRET}"
        self.environment["PORT"] = "0"
        server = Server(self, ["example/app.py"], self.environment)

        def flag(server, key="dark-mode"):
            return ask(server.port, "GET", f"/flags/{key}").json

        off = {"enabled": False, "value": None, "revision": 1}
        eventually("it has read", lambda: flag(server) == off)
        self.gateway.state = set_of(2, dark_mode=(True, "night"))
        body = message(2)
        self.assertEqual(ask(server.port, "POST", "/flagcast", body, signed(body)).status, 200)
        night = {"enabled": True, "value": "night", "revision": 2}
        self.assertEqual(flag(server), night)
        self.assertEqual(flag(server, "unknown"), {**off, "revision": 2})
        self.assertEqual(ask(server.port, "GET", "/health").status, 200)
        self.assertEqual(ask(server.port, "GET", "/nothing").status, 404)
        self.assertEqual(ask(server.port, "POST", "/health").status, 405)

        # It is stored off the path of the delivery, so a moment later.
        copy = Path(self.environment["FLAGCAST_COPY"])
        eventually("it is stored", lambda: copy.exists() and '"revision":2' in copy.read_text())
        self.gateway.stop()
        self.assertEqual(flag(server), night)
        server.stop()
        again = Server(self, ["example/app.py"], self.environment)
        self.assertEqual(flag(again), night)
        self.gateway.restart()
