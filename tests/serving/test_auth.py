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


def test_keys_come_from_the_environment() -> None:
    keys = Keys.from_environment({"FIRSTMILE_SERVER_KEYS": f" {KEY} ,{OTHER},"})
    assert keys.allows(b"Bearer " + OTHER.encode())
    assert not Keys.from_environment({"FIRSTMILE_SERVER_KEYS": " , "})


@pytest.mark.parametrize("keys", ["short", f"{KEY},short", "k" * 20 + "\n" + "k", "schlüssel" * 4, "two words " * 4])
def test_unusable_keys_are_refused(keys: str) -> None:
    with pytest.raises(KeysError, match=r"FIRSTMILE_SERVER_KEYS: key [12] "):
        Keys.from_environment({"FIRSTMILE_SERVER_KEYS": keys})


def test_no_key_is_printed_in_an_error() -> None:
    with pytest.raises(KeysError) as refused:
        Keys.from_environment({"FIRSTMILE_SERVER_KEYS": "hunter2"})
    assert "hunter2" not in str(refused.value)


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
