import pytest

from zim.protocol.vocabularies.goim import GOIM, is_zims


@pytest.mark.parametrize(
    ("body", "is_so"),
    [
        (b'{"token":"7","rooms":["a"]}', True),
        (b' { "token" : null }', True),
        (b'{"rooms":["a"]}', False),
        (b'["token"]', False),
        (b'"token"', False),
        (b"token", False),
        (b"{" * 5000, False),
        (b"\xff", False),
        (b"", False),
    ],
)
def test_an_auth_body_of_zims_is_known(body: bytes, is_so: bool) -> None:
    assert is_zims(body) is is_so
    assert GOIM.parse_login(body).token == body
