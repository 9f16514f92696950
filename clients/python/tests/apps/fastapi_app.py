"""FastAPI, with the receiver as a middleware."""

from fastapi import FastAPI

from .flags import flags, page

app = FastAPI()
app.add_middleware(flags.asgi_middleware, path="/flagcast")


@app.get("/page")
async def show():
    return page()
