"""Entries in MariaDB.

Every thread keeps a connection of its own. A database that is not there yet, or for a moment, is `Unavailable`; the
app goes on running and tries again.
"""

import logging
import os
import threading
import time
from urllib.parse import unquote, urlsplit

import pymysql

log = logging.getLogger(__name__)

TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(80) NOT NULL,
    message VARCHAR(1000) NOT NULL,
    created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
) CHARACTER SET utf8mb4
"""


class Unavailable(Exception):
    """The database cannot be asked now."""


def settings(environment=os.environ):
    """Where the database is: from `DATABASE_URL`, or from `DATABASE_HOST` and its sisters."""
    url = environment.get("DATABASE_URL")
    if url:
        parts = urlsplit(url)
        if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not parts.path.strip("/"):
            raise ValueError("DATABASE_URL must look like mysql://user:password@host:3306/name")
        return {
            "host": parts.hostname,
            "port": parts.port or 3306,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": unquote(parts.path.strip("/")),
        }
    if not environment.get("DATABASE_HOST"):
        raise ValueError("there is no database: set DATABASE_URL, or DATABASE_HOST and its sisters")
    return {
        "host": environment["DATABASE_HOST"],
        "port": int(environment.get("DATABASE_PORT", "3306")),
        "user": environment.get("DATABASE_USER", "guestbook"),
        "password": environment.get("DATABASE_PASSWORD", ""),
        "database": environment.get("DATABASE_NAME", "guestbook"),
    }


class Store:
    def __init__(self, where):
        self._where = where
        self._own = threading.local()
        self._ready = threading.Event()

    def prepare(self):
        """Makes the table, as soon as the database answers. Meant for a thread of its own."""
        pause = 0.2
        while not self._ready.is_set():
            try:
                self._run(TABLE)
                self._ready.set()
                log.info("the database is ready")
            except Unavailable as error:
                log.warning("the database is not ready: %s; trying again in %.1f s", error, pause)
                time.sleep(pause)
                pause = min(pause * 2, 3.0)

    def check(self):
        """Raises `Unavailable` unless entries can be read and written."""
        if not self._ready.is_set():
            raise Unavailable("the table is not there yet")
        self._run("SELECT 1")

    def latest(self, count=100):
        """The newest entries first."""
        rows = self._run("SELECT id, name, message, created_at FROM entries ORDER BY id DESC LIMIT %s", (count,))
        return [
            {"id": row[0], "name": row[1], "message": row[2], "created_at": f"{row[3].isoformat('T', 'milliseconds')}Z"}
            for row in rows
        ]

    def add(self, name, message):
        """Keeps an entry; gives its id."""
        return self._run("INSERT INTO entries (name, message) VALUES (%s, %s)", (name, message), insert=True)

    def _run(self, statement, values=(), insert=False):
        try:
            with self._connection().cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.lastrowid if insert else cursor.fetchall()
        except (pymysql.err.OperationalError, pymysql.err.InterfaceError, OSError) as error:
            self._forget()
            raise Unavailable(str(error)) from error

    def _connection(self):
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = pymysql.connect(
                **self._where,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=3,
                read_timeout=5,
                write_timeout=5,
                init_command="SET time_zone = '+00:00'",
            )
            self._own.connection = connection
        else:
            # The server closes connections that were idle for long, and a restart closes all of them.
            connection.ping(reconnect=True)
        return connection

    def _forget(self):
        connection = getattr(self._own, "connection", None)
        self._own.connection = None
        if connection is not None and connection.open:
            try:
                connection.close()
            except pymysql.err.Error:
                pass
