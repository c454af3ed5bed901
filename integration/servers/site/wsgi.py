"""Answers as the workers in examples/ do: `VERSION PID SLOT GENERATION`."""

import os


def app(environ, start_response):
    """For servers that speak WSGI."""
    words = (
        os.environ.get("VERSION", "dev"),
        str(os.getpid()),
        os.environ.get("SHEPHERD_SLOT", "-"),
        os.environ.get("SHEPHERD_GENERATION", "-"),
    )
    body = (" ".join(words) + "\n").encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
