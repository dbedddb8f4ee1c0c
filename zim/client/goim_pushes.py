"""goim v1's HTTP API, as it is: numbers for users and rooms, no idempotency keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from zim.client.errors import PushRefused, PushUnavailable, PushUnknown
from zim.client.http import HttpAnswer, HttpLink
from zim.client.pushes import body_bytes
from zim.json_text import STRICT

RET_OK = 1
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


class GoimPushes:
    """Pushes by goim's HTTP API.

    Every method returns the push id, or "" if the server names none (goim does not). They raise, all of them PushError:

    - PushRefused: the request is wrong, and will be the next time.
    - PushUnavailable: surely not accepted; try again, after `retry_after_s`.
    - PushUnknown: accepted or not, nobody knows; trying again may push twice.
    """

    _links: list[HttpLink]

    def push_user(self, uid: int | str, body: bytes | str) -> str:
        """Pushes to all sessions of one user. goim's uids are numbers: "007" is user 7. Raises: see GoimPushes."""
        hint = f"a uid is a number such as 7, not {str(uid)!r}, and not negative"
        return self._push_goim(f"/1/push?uid={quote(str(uid), safe='')}", body_bytes(body), hint)

    def push_users(self, uids: Iterable[int | str], body: bytes | str) -> str:
        """Pushes to several users. goim's format asks for a body that is JSON here. Raises: see GoimPushes."""
        if isinstance(uids, str | bytes) or not isinstance(uids, Iterable):
            raise PushRefused(f"uids are a list such as [7, 8], not {uids!r:.100}; push_user takes one")
        numbers = []
        for uid in uids:
            if not _NUMBER.fullmatch(str(uid)):
                raise PushRefused(f"{str(uid)!r} is not a uid; uids are numbers such as 7")
            numbers.append(int(uid))
        raw = body_bytes(body)
        if not _is_json(raw):
            raise PushRefused("the body of a push to several users must be JSON; quote it, or push to each user")
        request = b'{"u":%s,"m":%s}' % (json.dumps(numbers).encode(), raw)
        return self._push_goim("/1/pushs", request, "uids are numbers that are not negative")

    def push_room(self, room: int | str, body: bytes | str, *, ensure: bool = False) -> str:
        """Pushes to all in a room. `ensure` is goim's: do not gather with other pushes. Raises: see GoimPushes."""
        path = f"/1/push/room?rid={quote(str(room), safe='')}" + ("&ensure=true" if ensure else "")
        return self._push_goim(path, body_bytes(body), f"a room is a number such as 1, not {str(room)!r}")

    def push_all(self, body: bytes | str) -> str:
        """Pushes to everybody who is connected. Raises: see GoimPushes."""
        return self._push_goim("/1/push/all", body_bytes(body), "the fabric could not reach all of its routers")

    def _push_goim(self, path: str, body: bytes, hint: str) -> str:
        link = self._links[0]
        answer = link.post(path, body)
        _judge(answer, link.address, len(body), hint)
        return answer.push_id


def _judge(answer: HttpAnswer, address: str, size: int, hint: str) -> None:
    """Raises unless it is goim's answer for success."""
    status, wait_s = answer.status, answer.retry_after_s
    if status in (429, 503):
        when = f"in {wait_s:g} s" if wait_s else "soon"
        what = "the fabric cannot take it now" if status == 503 else "more than a limit of the fabric allows"
        raise PushUnavailable(f"{what} ({status}); try again {when}", status, retry_after_s=wait_s)
    if status == 504:
        raise PushUnknown("the fabric does not know whether the push was accepted (504)", status)
    if status == 413:
        raise PushRefused(
            f"the body is too large ({size} bytes, 413); the topology's fabric.max_body_bytes allows less", status
        )
    if status == 401:
        raise PushRefused("refused (401): an API key is needed, or this one is not known", status)
    ret = _ret(answer.body)
    if status != 200 or ret is None:
        raise PushRefused(
            f"HTTP {status} from {address} is no answer of goim's v1 API; is this a logic node's HTTP port?", status
        )
    if ret != RET_OK:
        raise PushRefused(f"refused with ret {ret}: {hint}", status)


def _is_json(raw: bytes) -> bool:
    try:
        STRICT.decode(raw.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _ret(text: bytes) -> int | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    ret = answer.get("ret") if isinstance(answer, dict) else None
    return ret if type(ret) is int else None
