#!/usr/bin/env python3
"""Waits until the app says that it and its database are well; the deployment fails when that takes too long."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

URL = f"http://127.0.0.1:{os.environ.get('PORT', '8080')}/health"
SECONDS = 90


def ask():
    """The reason why the app is not well yet, or None."""
    try:
        with urllib.request.urlopen(URL, timeout=3) as answer:
            found = json.load(answer)
            return None if found.get("status") == "ok" else f"it says {found}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}: {error.read(500).decode('utf-8', 'replace')}"
    except (OSError, ValueError) as error:
        return str(error)


deadline = time.monotonic() + SECONDS
while (reason := ask()) is not None:
    if time.monotonic() > deadline:
        sys.exit(f"{URL} is not well after {SECONDS} s: {reason}")
    time.sleep(0.2)
print(f"{URL} is well")
