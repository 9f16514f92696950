"""Flask."""

from flask import Flask

from .flags import flags, page

app = Flask(__name__)
app.wsgi_app = flags.wsgi_middleware(app.wsgi_app, path="/flagcast")


@app.get("/page")
def show():
    return page()
