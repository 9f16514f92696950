"""The receiver of an app, made when the app is loaded, and what the app's one page shows."""

import os

from flagcast import Receiver

flags = Receiver(
    url=os.environ["FLAGCAST_URL"],
    client_key=os.environ["FLAGCAST_CLIENT_KEY"],
    secret=os.environ["FLAGCAST_WEBHOOK_SECRET"],
    store=os.environ.get("FLAGCAST_COPY"),
    poll_seconds=float(os.environ.get("FLAGCAST_POLL_SECONDS", "0")),
)


def page():
    return {
        "enabled": flags.enabled("dark-mode"),
        "revision": flags.revision,
        "process": os.getpid(),
    }
