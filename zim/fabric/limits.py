"""How large things may be. Each limit has its name here, and nowhere else."""

NAME_BYTES = 253  # of a user's or a room's name, in UTF-8: with its `u:` or `r:` it is a stream's name
SESSION_KEY_BYTES = NAME_BYTES + 20  # the user, `_`, and at most 19 digits
STREAM_BYTES = NAME_BYTES + 2  # of a stream's name: its length is one byte in some protocols
KEY_BYTES = 255  # of an idempotency key, in UTF-8, whichever way it comes
ROOMS = 1_000  # of one session, and streams that it resumes at once
RECIPIENTS = 100_000  # users, rooms and session keys of one push, or of one batch
TTL_S = 366 * 86_400.0  # the end of a push must be a number that a log can keep
WAIT_S = 30.0  # how long an answer may wait for a receipt
RECEIPT_NAMES = 100  # users and rooms that a receipt names
MESSAGES = 1_000  # of one piece of a stream
LARGEST = 1_000  # rooms of one answer: the largest ones
SESSIONS, SESSION_ROOMS = 1_000, 10_000  # of one user, in one answer or push; all rooms of these sessions together
PUSHES = 2_000  # of one message to a router
CHANGES = 200  # of who is online, of one message
RESULTS = 4_000  # of what became of entries, of one message
OFFSET = (1 << 63) - 1  # what SQLite, and languages without unsigned numbers, can hold
PATTERNS, PATTERN_BYTES = 100, 255  # of one list, such as a token has; of one pattern, in UTF-8
TOKEN_BYTES = 8 << 10  # of a token that is looked at
SHARDS = 1_024  # of one log
BANS = 100_000  # that one router keeps
BANNED_NETWORKS = 10_000  # of them: each comet knows all of these
BAN_S = 3650 * 86_400.0  # for which one may last, if it has an end
REASON_CHARS = 200  # of what a client is told; a WebSocket close frame takes the first 123 bytes
ORDERS = 200  # to a comet, of one message
