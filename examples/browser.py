"""Serves a page that listens: what is pushed to the user and to the room `lobby` appears on it.

    .venv/bin/zim up                            # a fabric, in another terminal
    .venv/bin/python examples/browser.py        # this, until Ctrl-C; then open http://127.0.0.1:8001/?uid=7
    .venv/bin/zim push user 7 '{"test":1}'      # in a third

The page goes on where it was when its connection is lost: stop `zim up`, start it again, push.
A comet on loopback lets pages of loopback in; a page from elsewhere has to stand in the topology's `origins`.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>zim</title>
<ul id="list"></ul>
<script>
const has = {}, uid = new URLSearchParams(location.search).get("uid") || "7"  // has: [epoch, offset] of each stream
const show = (...words) => document.getElementById("list").append(Object.assign(
  document.createElement("li"), {textContent: words.join(" ")}))
function connect() {
  const ws = new WebSocket(COMET), say = (op, body) => ws.send(JSON.stringify({ver: 3, op, seq: 1, body}))
  let beat
  ws.onopen = () => { say(7, {token: uid, rooms: ["lobby"], resume: has}); beat = setInterval(say, 60000, 2, {}) }
  ws.onclose = () => { clearInterval(beat); setTimeout(connect, 500 + 1000 * Math.random()) }
  ws.onmessage = ({data}) => { for (const {op, stream, offset, body} of JSON.parse(data)) {
    if (stream) {  // a message; one at or below the position is a repeat
      if (offset > has[stream][1]) { has[stream][1] = offset; show(stream, offset, JSON.stringify(body)) }
    }
    else if (op === 26) { has[body.stream] = [body.epoch, body.to]; show(body.stream, "has lost something") }
    else if (op === 8 || op === 21) for (const [name, start] of Object.entries(body.streams)) {
      if (start.error) { show(name, start.error); continue }
      if (!start.recovered) show(name, "has lost something")
      has[name] = [start.epoch, start.offset]
    }
  } }
}
connect()
</script>
"""


def make_server(port, comet):
    """An HTTP server that has the page, and nothing else. comet: the URL of its WebSocket."""
    page = PAGE.replace("COMET", json.dumps(comet)).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            is_page = self.path.partition("?")[0] == "/"
            body = page if is_page else b"there is only /\n"
            self.send_response(200 if is_page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8" if is_page else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", default="ws://127.0.0.1:8090/sub", help="the comet's WebSocket (%(default)s)")
    parser.add_argument("--port", type=int, default=8001, help="where this listens, on 127.0.0.1 (%(default)s)")
    options = parser.parse_args()
    with make_server(options.port, options.comet) as server:
        print(f"the page is at http://127.0.0.1:{options.port}/?uid=7", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
