"""Answers as the workers in examples/ do: `VERSION PID SLOT GENERATION`."""

import os


async def app(scope, receive, send):
    """For servers that speak ASGI."""
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")  # So that the server does without the rest.
    words = (
        os.environ.get("VERSION", "dev"),
        str(os.getpid()),
        os.environ.get("SHEPHERD_SLOT", "-"),
        os.environ.get("SHEPHERD_GENERATION", "-"),
    )
    body = (" ".join(words) + "\n").encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
