"""A backend in Flask: who orders something is told so, wherever they are.

    .venv/bin/zim up                               # a fabric, in another terminal
    .venv/bin/python examples/flask_backend.py     # this, until Ctrl-C
    .venv/bin/zim listen --uid 7                   # user 7, in a third
    curl -d item=tea http://127.0.0.1:5000/users/7/orders

With the header `Idempotency-Key` an order that is sent again is not told twice.
"""

import argparse
import json

from flask import Flask, request

from zim.client import Publisher, PushError, PushRefused


def make_app(publisher):
    """The backend. A publisher is for all threads: each has its own connections."""
    app = Flask(__name__)

    @app.post("/users/<int:uid>/orders")
    def order(uid):
        body = json.dumps({"ordered": request.form["item"]})
        accepted = publisher.push(body, users=uid, id=request.headers.get("Idempotency-Key", ""))
        return {"push_id": accepted.push_id, "offsets": accepted.streams}, 201

    @app.errorhandler(PushError)
    def not_pushed(error):  # the publisher has tried for some seconds already
        return {"error": str(error)}, 400 if isinstance(error, PushRefused) else 503

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fabric", default="http://127.0.0.1:7172", help="a logic's http address (%(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="where this listens, on 127.0.0.1 (%(default)s)")
    options = parser.parse_args()
    make_app(Publisher(options.fabric, retry_s=5.0)).run(port=options.port)
