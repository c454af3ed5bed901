"""What gunicorn serves: the answer that the example workers give."""

import os


def app(environ, start_response):
    slot = os.environ.get("SHEPHERD_SLOT", "-")
    generation = os.environ.get("SHEPHERD_GENERATION", "-")
    body = f"dev {os.getpid()} {slot} {generation}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
