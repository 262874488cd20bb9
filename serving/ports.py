"""Whether the service can listen where it is asked to, found out before it starts: Bento would end with a traceback."""

import errno
import socket


def check(host: str, port: int) -> None:
    """Try to listen.

    Raises:
        ValueError: the port is in use, the address is not one of this machine, or the system forbids it.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as e:
        raise ValueError(
            f"expected an address of this machine, such as 127.0.0.1; came {host!r}: {e.strerror}"
        ) from None
    with socket.socket(family, kind) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(address)
        except OSError as e:
            other = f"--port {port + 1}, or `make serve PORT={port + 1}`"
            if e.errno == errno.EADDRINUSE:
                told = (
                    f"port {port} of {host} is in use: end the program that listens there, or choose another: {other}"
                )
            else:
                told = f"cannot listen on {host}, port {port}: {e.strerror}; choose another, such as {other}"
            raise ValueError(told) from None
