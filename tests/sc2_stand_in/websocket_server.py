"""The few pages of RFC 6455 that one connection from pysc2 needs."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator

_ACCEPT_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10
_DATA = (0, 1, _BINARY)


def listen(host: str, port: int) -> socket.socket:
    """A socket that the client can connect to from now on."""
    return socket.create_server((host, port), backlog=1)


class Connection:
    """The first client of a listening socket, after the handshake."""

    def __init__(self, server: socket.socket) -> None:
        self._socket, _ = server.accept()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        headers = dict(self._headers())
        accepted = hashlib.sha1((headers["sec-websocket-key"] + _ACCEPT_KEY).encode()).digest()
        lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
        lines += (f"Sec-WebSocket-Accept: {base64.b64encode(accepted).decode()}", "", "")
        self._socket.sendall("\r\n".join(lines).encode())

    def _headers(self) -> Iterator[tuple[str, str]]:
        self._stream.readline()  # the request line
        while line := self._stream.readline().decode().strip():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def messages(self) -> Iterator[bytes]:
        """What the client sends, until it goes away."""
        message = b""
        while header := self._stream.read(2):
            is_last, opcode = header[0] >> 7, header[0] & 0x0F
            payload = self._payload(header[1])
            if opcode == _CLOSE:
                return
            if opcode == _PING:
                self._write(_PONG, payload)
            elif opcode in _DATA:
                message += payload
                if is_last:
                    yield message
                    message = b""

    def _payload(self, second: int) -> bytes:
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._stream.read(2 if length == 126 else 8), "big")
        if not second >> 7:
            raise ValueError("a client has to mask what it sends")
        key = self._stream.read(4)
        # As one number: byte by byte a map would take seconds.
        masked = int.from_bytes(self._stream.read(length), "big")
        keys = int.from_bytes((key * (length // 4 + 1))[:length], "big")
        return (masked ^ keys).to_bytes(length, "big")

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._write(_BINARY, message)

    def _write(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([length])
        elif length < 2**16:
            head += bytes([126]) + length.to_bytes(2, "big")
        else:
            head += bytes([127]) + length.to_bytes(8, "big")
        self._socket.sendall(head + payload)
