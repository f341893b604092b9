"""The app, as plain WSGI (PEP 3333): it knows of a store, and nothing of where that is."""

import json
import logging
from http import HTTPStatus
from urllib.parse import parse_qs

from .page import render
from .store import Unavailable
from .version import VERSION

log = logging.getLogger(__name__)

MAX_BODY = 16 * 1024
HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
]


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Application:
    def __init__(self, store, environment):
        self.store = store
        self.title = environment.get("GUESTBOOK_TITLE", "Guestbook")
        place = [environment.get(name) for name in ("VEND_ENVIRONMENT", "VEND_RELEASE", "VEND_COMMIT", "HOSTNAME")]
        self.foot = " · ".join(["guestbook " + VERSION] + [part[:12] for part in place if part])
        self.routes = {
            ("GET", "/"): self.show,
            ("POST", "/"): self.sign,
            ("GET", "/health"): self.health,
            ("GET", "/api/entries"): self.list,
            ("POST", "/api/entries"): self.add,
        }

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO") or "/"
        method = environ["REQUEST_METHOD"]
        try:
            status, headers, body = self.answer("GET" if method == "HEAD" else method, path, environ)
        except Refused as refusal:
            status, headers, body = self.refuse(path, refusal.status, str(refusal))
        except Unavailable as error:
            log.warning("%s %s: the database cannot be asked: %s", method, path, error)
            status, headers, body = self.refuse(
                path, HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer. Please try again in a moment."
            )
        headers = headers + HEADERS + [("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [] if method == "HEAD" else [body]

    def answer(self, method, path, environ):
        handler = self.routes.get((method, path))
        if handler is None:
            known = any(path == route for _, route in self.routes)
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
            raise Refused(status, status.phrase)
        return handler(environ)

    def show(self, environ):
        return page(HTTPStatus.OK, render(self.title, self.store.latest(), self.foot))

    def sign(self, environ):
        # What a browser sends, decoded once and bounded.
        fields = parse_qs(body_of(environ).decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
        self.store.add(*checked({name: values[0] for name, values in fields.items()}))
        return HTTPStatus.SEE_OTHER, [("Location", "/")], b""

    def health(self, environ):
        self.store.check()
        return as_json(HTTPStatus.OK, {"status": "ok", "version": VERSION})

    def list(self, environ):
        return as_json(HTTPStatus.OK, {"entries": self.store.latest()})

    def add(self, environ):
        try:
            fields = json.loads(body_of(environ))
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body must be JSON.") from None
        if not isinstance(fields, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
        name, message = checked(fields)
        entry = {"id": self.store.add(name, message), "name": name, "message": message}
        return as_json(HTTPStatus.CREATED, entry)

    def refuse(self, path, status, message):
        if path.startswith("/api/") or path == "/health":
            return as_json(status, {"error": message})
        return page(status, render(self.title, [], self.foot, message))


def body_of(environ):
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not a number.") from None
    if not 0 <= length <= MAX_BODY:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have {MAX_BODY} bytes at most.")
    return environ["wsgi.input"].read(length)


def checked(fields):
    """Name and message of an entry, or why not."""
    values = []
    for field, most in (("name", 80), ("message", 1000)):
        value = fields.get(field)
        value = value.strip() if isinstance(value, str) else ""
        # What no text column keeps: NUL, and halves of characters.
        value = value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
        if not value:
            raise Refused(HTTPStatus.BAD_REQUEST, f"The {field} is missing.")
        if len(value) > most:
            raise Refused(HTTPStatus.BAD_REQUEST, f"The {field} may have {most} characters at most.")
        values.append(value)
    return values


def page(status, text):
    return status, [("Content-Type", "text/html; charset=utf-8")], text.encode()


def as_json(status, value):
    return status, [("Content-Type", "application/json")], json.dumps(value).encode()
