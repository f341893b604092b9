"""A guestbook: a page, a small API, and a table in MariaDB."""
