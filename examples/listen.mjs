// Listens to a user, and goes on where it was: after a lost connection, and when it is started again.
//
//     .venv/bin/zim up                                # a fabric, in another terminal
//     node examples/listen.mjs --uid 7                # until Ctrl-C
//     node examples/listen.mjs --uid 7 --count 3      # ends after three messages
//     .venv/bin/zim push user 7 '{"test":1}'          # in a third
//
// Node 22 or later, no packages. Where it was is in a file, zim-7.json unless --state names another.

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { parseArgs } from "node:util"

const { values: options } = parseArgs({
  options: {
    uid: { type: "string", default: "7" },
    room: { type: "string", multiple: true, default: [] },
    comet: { type: "string", multiple: true, default: ["ws://127.0.0.1:8090/sub"] }, // more than once: each in turn
    count: { type: "string", default: "Infinity" },
    state: { type: "string" },
    help: { type: "boolean", short: "h", default: false },
  },
})
if (options.help) {
  console.log("node listen.mjs [--uid 7] [--room NAME]… [--comet ws://HOST:PORT/sub]… [--count N] [--state FILE]")
  process.exit(0)
}
if (typeof WebSocket === "undefined") {
  console.error(`Node ${process.version} has no WebSocket: 22 or later has, or node --experimental-websocket`)
  process.exit(1)
}
const file = options.state ?? `zim-${options.uid}.json`
const has = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {} // of each stream: [epoch, offset]
let left = Number(options.count)
let attempts = 0

function keep(stream, epoch, offset) {
  has[stream] = [epoch, offset]
  writeFileSync(`${file}.new`, JSON.stringify(has)) // whole, or not at all
  renameSync(`${file}.new`, file)
}

function lost(stream, what) {
  console.error(`could not recover ${stream}: ${what}`) // load what it was about from elsewhere
}

function started(streams) {
  for (const [stream, start] of Object.entries(streams)) {
    if (start.error) {
      console.error(`nothing of ${stream} comes: ${start.error}`)
      continue
    }
    if (!start.recovered) {
      lost(stream, `what came after ${has[stream]?.[1] ?? "the last acknowledgement"}; it goes on after ${start.offset}`)
    }
    keep(stream, start.epoch, start.offset)
  }
}

function connect() {
  const comet = options.comet[attempts % options.comet.length]
  const ws = new WebSocket(comet)
  const say = (op, body) => ws.send(JSON.stringify({ ver: 3, op, seq: 1, body }))
  let heartbeat

  ws.onopen = () => {
    say(7, { token: options.uid, resume: has, ...(options.room.length ? { rooms: options.room } : {}) })
  }
  ws.onmessage = ({ data }) => {
    for (const { op, stream, offset, body } of JSON.parse(data)) {
      if (left <= 0) return
      if (stream) {
        if (offset <= has[stream][1]) continue // a repeat
        console.log(`${stream} ${offset} ${JSON.stringify(body)}`)
        keep(stream, has[stream][0], offset)
        if (--left <= 0) ws.close()
      } else if (op === 8) {
        console.error(`connected to ${comet}`)
        attempts = 0
        heartbeat = setInterval(say, (body.heartbeat_s * 1000) / 2, 2, {})
        started(body.streams)
      } else if (op === 21) {
        started(body.streams) // a room whose router was away
      } else if (op === 26) {
        lost(body.stream, `messages ${body.from} to ${body.to} will not come (${body.reason})`)
        keep(body.stream, body.epoch, body.to)
      }
    }
  }
  let isOver = false
  ws.onclose = ws.onerror = () => { // Node tells some failures by the one alone, some by both
    clearInterval(heartbeat)
    if (isOver || left <= 0) return
    isOver = true
    // Not all at once, and not at once for ever: 0.2 s at first, 10 s at most, half of it by chance.
    const wait_ms = Math.min(10_000, 200 * 2 ** attempts++) * (0.5 + Math.random() / 2)
    console.error(`no connection to ${comet}; again in ${(wait_ms / 1000).toFixed(1)} s`)
    setTimeout(connect, wait_ms)
  }
}

connect()
