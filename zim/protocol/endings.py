"""Why connections end, and what their clients are told to do about it. Pure.

Codes of WebSocket close frames: RFC 6455 7.4.1, and the IANA registry for 1013. Those from 4000 up are zim's own.
"""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """Why a connection ends.

    Attributes:
        word: for the log, for counting, and for people.
        code: of the close frame for clients that do not speak zim's own protocol; 0 for none, as goim v1.
        zim_code: for those that do. 4000 to 4199: come back at once; 4200 to 4399: come back, later and later; 4400 to
            4599: stay away, for it would end in the same way. 0 if there is nobody to be told.
    """

    CLIENT = "closed by the client", 0, 0
    LOST = "connection lost", 0, 0
    GOING_AWAY = "the server is going away", 1001, 4000
    SILENT = "heartbeat timeout", 1001, 4001
    DRAINED = "the comet is being drained", 1001, 4002
    TRY_AGAIN = "try again", 1013, 4200
    LATE = "handshake timeout", 1013, 4201
    SLOW = "slow consumer", 1008, 4202
    MISSING = "messages are missing", 1013, 4203
    MUTE = "no auth in time", 0, 4204
    EXPIRED = "token expired", 1008, 4205
    SENT_AWAY = "sent away", 1013, 4206
    TOO_OFTEN = "too many logins", 1013, 4207
    TOO_FAST = "too much at once", 1013, 4208
    PACKET = "broken packet", 0, 4400
    AUTH = "broken auth", 0, 4401
    REFUSED = "login refused", 1008, 4402
    REQUEST = "broken request", 0, 4403
    OPERATION = "operation not known", 0, 4404
    BANNED = "banned", 1008, 4405
    KICKED = "kicked", 1008, 4406
    REPLACED = "replaced by another session", 1008, 4407
    TOO_MANY = "too many sessions", 1008, 4408

    def __init__(self, word: str, code: int, zim_code: int) -> None:
        self.word, self.code, self.zim_code = word, code, zim_code

    def because(self, why: str) -> str:
        """What is said of it, with what somebody has said why: "banned: spam"."""
        return f"{self.word}: {why}" if why else self.word

    @property
    def is_broken(self) -> bool:
        """Its client broke the wire, or showed a token that is nobody's."""
        return self in _BROKEN


_BROKEN = {Ending.PACKET, Ending.AUTH, Ending.REFUSED, Ending.REQUEST, Ending.OPERATION}
