"""A backend in Flask that hands out tokens: whoever is logged in shows one to zim, and is let in as that user.

    (umask 077; python3 -c 'import secrets; print(secrets.token_urlsafe(48))' >jwt-secret)
    .venv/bin/zim up examples/tokens.toml                                    # a fabric that knows the secret
    .venv/bin/python examples/flask_tokens.py jwt-secret                     # this, until Ctrl-C, in another terminal
    curl -s -c jar -d user=anna http://127.0.0.1:5000/login                  # in a third; the session is a cookie
    curl -s -b jar http://127.0.0.1:5000/zim-token | cut -d'"' -f4 >anna.token
    .venv/bin/zim listen --token-file anna.token --tcp 127.0.0.1:8080 --room lobby --room chat-7
    .venv/bin/zim push room chat-7 hello                                     # in a fourth

A token holds for 5 minutes; a page fetches one for each connection, and before it ends: see docs/how-to/browser.md.
"""

import argparse
import secrets
import time
from pathlib import Path

import jwt
from flask import Flask, abort, request, session

LIFETIME_S = 300


def make_app(secret):
    """The backend. secret: what zim has, too, to verify what is signed here."""
    app = Flask(__name__)
    app.secret_key = secrets.token_bytes()  # of the cookie; another one after a restart, so all log in anew

    @app.get("/")
    def form():
        return '<form method="post" action="/login"><input name="user"><button>Log in</button></form>'

    @app.post("/login")
    def log_in():  # your own, with a password
        session["user"] = request.form["user"]
        return {"user": session["user"]}

    @app.get("/zim-token")
    def token():
        if "user" not in session:
            abort(401)
        claims = {"iss": "https://app.example.com", "aud": "zim", "sub": session["user"]}
        may = {"rooms": ["lobby"], "join": ["chat-*"]}
        claims |= {"exp": int(time.time()) + LIFETIME_S, "zim": may}
        return {"token": jwt.encode(claims, secret, "HS256")}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("secret", type=Path, help="the file with the secret")
    parser.add_argument("--port", type=int, default=5000, help="where this listens, on 127.0.0.1 (%(default)s)")
    options = parser.parse_args()
    make_app(options.secret.read_text().strip()).run(port=options.port)
