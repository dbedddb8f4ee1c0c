"""A backend in FastAPI: what is said in a room is told to all who are in it.

    .venv/bin/pip install fastapi uvicorn
    .venv/bin/zim up                                     # a fabric, in another terminal
    .venv/bin/python examples/fastapi_backend.py         # this, until Ctrl-C
    .venv/bin/zim listen --uid 7 --room tea              # user 7 in the room, in a third
    curl -H 'Content-Type: application/json' -d '{"text":"hello"}' http://127.0.0.1:8000/rooms/tea/messages

The publisher waits for the fabric, so the functions are `def` and not `async def`: FastAPI runs them in threads.
"""

import argparse

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from zim.client import Publisher, PushError, PushRefused


class Said(BaseModel):
    """What somebody says."""

    text: str


def make_app(publisher):
    """The backend. A publisher is for all threads: each has its own connections."""
    app = FastAPI()

    @app.post("/rooms/{room}/messages", status_code=201)
    def say(room: str, said: Said):
        accepted = publisher.push(said.model_dump_json(), rooms=room)
        return {"push_id": accepted.push_id, "offsets": accepted.streams}

    @app.exception_handler(PushError)
    def not_pushed(_, error):  # the publisher has tried for some seconds already
        return JSONResponse({"error": str(error)}, 400 if isinstance(error, PushRefused) else 503)

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fabric", default="http://127.0.0.1:7172", help="a logic's http address (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="where this listens, on 127.0.0.1 (%(default)s)")
    options = parser.parse_args()
    uvicorn.run(make_app(Publisher(options.fabric, retry_s=5.0)), port=options.port)
