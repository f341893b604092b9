"""How gunicorn serves the guestbook. On SIGTERM it takes no more requests, and finishes those that it has."""

import os

bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"
worker_class = "gthread"
workers = 1
threads = 16
# Longer than the load balancer keeps its connections, so that it is never this side that closes one in use.
keepalive = 75
graceful_timeout = 25
timeout = 60
errorlog = "-"
# Nothing on the host talks to gunicorn but signals.
control_socket_disable = True
