"""FastAPI with the receiver as a mounted app: the address of the webhook ends with a `/`."""

from fastapi import FastAPI

from .flags import flags, page

app = FastAPI()
app.mount("/flagcast/", flags.asgi)


@app.get("/page")
async def show():
    return page()
