"""What the WSGI server imports: the app with its database, which may come later than the app."""

import logging
import os
import threading

from .app import Application
from .store import Store, settings

logging.basicConfig(level=os.environ.get("LOG_LEVEL", "info").upper(), format="%(levelname)s %(name)s: %(message)s")

store = Store(settings())
threading.Thread(target=store.prepare, name="prepare", daemon=True).start()
application = Application(store, os.environ)
