"""Starlette, with the receiver as a route."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from .flags import flags, page

app = Starlette(
    routes=[
        Route("/flagcast", flags.asgi),
        Route("/page", lambda request: JSONResponse(page())),
    ]
)
