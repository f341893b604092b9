"""The app without a database: a list stands for the table."""

import io
import json
import unittest

from guestbook.app import MAX_BODY, Application
from guestbook.store import Unavailable
from guestbook.version import VERSION


class Memory:
    def __init__(self):
        self.entries = []
        self.down = False

    def check(self):
        if self.down:
            raise Unavailable("down")

    def latest(self, count=100):
        self.check()
        return self.entries[::-1][:count]

    def add(self, name, message):
        self.check()
        number = len(self.entries) + 1
        self.entries.append({"id": number, "name": name, "message": message, "created_at": "2026-01-02T03:04:05.678Z"})
        return number


class Guestbook(unittest.TestCase):
    def setUp(self):
        self.store = Memory()
        self.app = Application(self.store, {"GUESTBOOK_TITLE": "A <title>", "VEND_ENVIRONMENT": "dev"})

    def request(self, method, path, body=b"", length=None):
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "CONTENT_LENGTH": str(len(body)) if length is None else length,
            "wsgi.input": io.BytesIO(body),
        }
        found = {}

        def start_response(status, headers):
            found.update(status=int(status.split()[0]), headers=dict(headers))

        text = b"".join(self.app(environ, start_response)).decode()
        return found["status"], found["headers"], text

    def test_the_page_shows_title_version_and_place(self):
        status, headers, text = self.request("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("A &lt;title&gt;", text)
        self.assertIn(f"guestbook {VERSION} · dev", text)
        self.assertIn("Nobody has signed yet.", text)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])

    def test_signing_leads_back_to_the_page(self):
        status, headers, _ = self.request("POST", "/", b"name=Ada&message=Hello%2C+world%21")
        self.assertEqual((status, headers["Location"]), (303, "/"))
        self.assertIn("Hello, world!", self.request("GET", "/")[2])

    def test_what_people_write_is_text(self):
        self.request("POST", "/", b"name=%3Cb%3E&message=%3Cscript%3Ealert(1)%3C/script%3E")
        text = self.request("GET", "/")[2]
        self.assertNotIn("<script>", text)
        self.assertIn("&lt;script&gt;", text)

    def test_entries_come_and_go_as_json(self):
        body = json.dumps({"name": "Zoë", "message": "'; DROP TABLE entries; -- \U0001f600"}).encode()
        status, _, text = self.request("POST", "/api/entries", body)
        self.assertEqual((status, json.loads(text)["id"]), (201, 1))
        entries = json.loads(self.request("GET", "/api/entries")[2])["entries"]
        self.assertEqual(entries[0]["message"], "'; DROP TABLE entries; -- \U0001f600")

    def test_bad_entries_are_refused(self):
        for body in [
            b"", b"{", b"[]", b"null", b"{}", b'{"name": "a"}', b'{"name": 1, "message": "b"}',
            b'{"name": " ", "message": "b"}', b'{"name": "\\u0000", "message": "b"}', b"[" * 10_000,
            json.dumps({"name": "a" * 81, "message": "b"}).encode(),
            json.dumps({"name": "a", "message": "b" * 1001}).encode(),
            b"\xff\xfe",
        ]:
            status, _, text = self.request("POST", "/api/entries", body)
            self.assertEqual(status, 400, body[:40])
            self.assertIn("error", json.loads(text))
        self.assertEqual(self.store.entries, [])

    def test_halves_of_characters_do_not_reach_the_table(self):
        status, _, _ = self.request("POST", "/api/entries", b'{"name": "\\ud800", "message": "b"}')
        self.assertEqual((status, self.store.entries[0]["name"]), (201, "?"))

    def test_large_bodies_are_not_read(self):
        self.assertEqual(self.request("POST", "/", b"", length=str(MAX_BODY + 1))[0], 413)
        self.assertEqual(self.request("POST", "/", b"", length="-1")[0], 413)
        self.assertEqual(self.request("POST", "/", b"", length="x")[0], 400)

    def test_other_paths_and_methods(self):
        self.assertEqual(self.request("GET", "/nothing")[0], 404)
        self.assertEqual(self.request("DELETE", "/")[0], 405)
        status, headers, text = self.request("HEAD", "/")
        self.assertEqual((status, text), (200, ""))
        self.assertGreater(int(headers["Content-Length"]), 100)

    def test_health_follows_the_database(self):
        self.assertEqual(json.loads(self.request("GET", "/health")[2]), {"status": "ok", "version": VERSION})
        self.store.down = True
        self.assertEqual(self.request("GET", "/health")[0], 503)
        self.assertEqual(self.request("GET", "/")[0], 503)
        self.assertEqual(self.request("POST", "/", b"name=a&message=b")[0], 503)
