"""The store: where the database is, and, when there is one, what it keeps."""

import os
import unittest
import uuid

from guestbook.store import Store, Unavailable, settings


class Settings(unittest.TestCase):
    def test_a_url(self):
        found = settings({"DATABASE_URL": "mysql://ann:p%40ss%2Fw%3Ard@10.0.0.2:3307/book"})
        self.assertEqual(
            found, {"host": "10.0.0.2", "port": 3307, "user": "ann", "password": "p@ss/w:rd", "database": "book"}
        )

    def test_single_variables(self):
        found = settings({"DATABASE_HOST": "db", "DATABASE_NAME": "book", "DATABASE_USER": "ann", "DATABASE_PASSWORD": "x"})
        self.assertEqual(found, {"host": "db", "port": 3306, "user": "ann", "password": "x", "database": "book"})

    def test_nonsense_is_refused_without_telling_the_password(self):
        for environment in [{}, {"DATABASE_URL": "postgres://a:secret@h/x"}, {"DATABASE_URL": "mysql://a:secret@h"}]:
            with self.assertRaises(ValueError) as caught:
                settings(environment)
            self.assertNotIn("secret", str(caught.exception))


class Absent(unittest.TestCase):
    def test_a_database_that_is_not_there_is_unavailable(self):
        store = Store({"host": "127.0.0.1", "port": 1, "user": "a", "password": "b", "database": "c"})
        with self.assertRaises(Unavailable):
            store.check()
        with self.assertRaises(Unavailable):
            store.latest()


@unittest.skipUnless(os.environ.get("DATABASE_URL"), "there is no DATABASE_URL")
class Present(unittest.TestCase):
    def test_entries_are_kept(self):
        store = Store(settings())
        store.prepare()
        store.check()
        text = f"'; DROP TABLE entries; -- \U0001f600 {uuid.uuid4()}"
        number = store.add("Zoë", text)
        newest = store.latest()[0]
        self.assertEqual((newest["id"], newest["name"], newest["message"]), (number, "Zoë", text))
        self.assertTrue(newest["created_at"].endswith("Z"))
