"""What a schema cannot say: a cursor is good only if the gateway made it, a text
in a URL may have to be JSON, and not every URL is one that may be asked."""

from base64 import b64encode, urlsafe_b64encode

import schemathesis
from hypothesis import strategies


def cursors(*texts):
    return strategies.sampled_from(
        [urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in texts]
    )


schemathesis.openapi.format("cursor", cursors("after:1", "after:20"))
schemathesis.openapi.format("text-cursor", cursors("behind:a", "behind:user-1"))
schemathesis.openapi.format(
    "traits", strategies.sampled_from(["{}", '{"plan":"pro","age":7}', '{"plan":null}'])
)
schemathesis.openapi.format(
    "target-url",
    # Nobody answers there, and the gateway finds out at once.
    strategies.sampled_from(["http://127.0.0.1:1/", "http://127.0.0.1:1/flagcast?x=1"]),
)
schemathesis.openapi.format(
    "target-header", strategies.sampled_from(["authorization", "x-a", "X-Shop"])
)
schemathesis.openapi.format(
    "webhook-secret",
    strategies.binary(min_size=24, max_size=64).map(
        lambda secret: "whsec_" + b64encode(secret).decode()
    ),
)
# OFREP: flags of every kind, one that needs a name, one that the key may not see, and none.
schemathesis.openapi.format(
    "flag-key",
    strategies.sampled_from(["banner", "dark-mode", "limit", "colour", "secret", "nobody"])
    | strategies.text(min_size=1),
)
schemathesis.openapi.format(
    "held-tags", strategies.sampled_from(["*", '"other"', 'W/"other", *', "unquoted"])
)
schemathesis.openapi.format(
    "instant", strategies.sampled_from(["0", "1771622898", "2026-02-20T21:28:18Z"])
)
