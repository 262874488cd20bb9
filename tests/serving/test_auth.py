import pytest

from serving.auth import Keys, KeysError, check_address, is_loopback

KEY, OTHER = "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (b"Bearer " + KEY.encode(), True),
        (b"bearer " + OTHER.encode(), True),
        (b"Bearer  " + KEY.encode() + b" ", True),
        (b"Bearer " + KEY.encode()[:-1], False),
        (b"Bearer " + KEY.encode() + b"x", False),
        (b"Bearer " + KEY.encode() + b"," + OTHER.encode(), False),
        (b"Bearer ", False),
        (b"Bearer", False),
        (KEY.encode(), False),
        (b"Basic " + KEY.encode(), False),
        (b"Bearer \xff\xfe", False),
        (None, False),
    ],
)
def test_keys_open(header: bytes | None, allowed: bool) -> None:
    assert Keys((KEY, OTHER)).allows(header) is allowed


def test_without_keys_no_header_opens() -> None:
    assert not Keys().allows(b"Bearer ")
    assert not Keys()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_address_without_keys(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    assert check_address(host, Keys((KEY,))) is None
    if loopback:
        assert "FIRSTMILE_SERVER_KEYS" in (check_address(host, Keys()) or "")
    else:
        with pytest.raises(KeysError, match=r"refusing to listen on .* without server keys"):
            check_address(host, Keys())
