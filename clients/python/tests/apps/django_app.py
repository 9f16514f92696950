"""Django, by WSGI and by ASGI, in one file."""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from .flags import flags, page

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
)
urlpatterns = [path("page", lambda request: JsonResponse(page()))]

wsgi = flags.wsgi_middleware(get_wsgi_application(), path="/flagcast")
asgi = flags.asgi_middleware(get_asgi_application(), path="/flagcast")
