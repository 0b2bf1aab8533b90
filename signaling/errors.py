"""Every exception of this package. The text of each is one sentence a person can act on."""

from __future__ import annotations


class SignalingError(Exception):
    """Base of all errors below."""


class InvalidLink(SignalingError, ValueError):
    """The text is not a link that :meth:`signaling.Link.create` made."""


class InvalidServerUrl(SignalingError, ValueError):
    """The text is not the URL of a signaling server."""


class InvalidMessage(SignalingError, ValueError):
    """A frame is not a message of the protocol ``icepunch.v1``."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class MessageTooLarge(SignalingError, ValueError):
    """The payload of a signal, or the note given at joining, is over its limit."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a payload of {size} bytes is over the limit of {limit}")
        self.size = size
        self.limit = limit


class InvalidCode(SignalingError, ValueError):
    """The text is no spoken code."""


class CodeNotFound(SignalingError, ConnectionError):
    """Nobody offers a link under the number of the code."""


class WrongCode(SignalingError, ConnectionError):
    """The words of the code are not those of the other side."""


class CodeSpent(SignalingError, ConnectionError):
    """The code was used, or three wrong ones were tried."""


class SealBroken(SignalingError):
    """A payload does not open: another secret sealed it, or it was altered on its way."""


class ListenFailed(SignalingError, OSError):
    """The server can not listen on the address asked for."""


class EngineMissing(SignalingError, ValueError):
    """The WebSocket library asked for is not installed, or is none."""


class ClientClosed(SignalingError, ConnectionError):
    """The client was closed, or was never connected."""


class SessionLost(SignalingError, ConnectionError):
    """The server no longer knew the session; the client has a new identity in the room.

    Raised by a ``send`` that waited across the change: its addressee and its seal belong to the
    old identity.
    """


class ServerUnreachable(SignalingError, ConnectionError):
    """No signaling server could be reached. ``cause`` is one of the words below.

    ``refused`` ``name`` ``timeout`` ``network`` ``tls`` ``proxy`` ``not-signaling`` ``busy``
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class ServerRefused(SignalingError, ConnectionError):
    """The server refused this client for good: closed with a code from 4500 to 4999.

    ``code`` is the error code of the protocol (``bad_field``, ...), ``close_code`` the WebSocket
    close code.
    """

    def __init__(self, message: str, *, code: str = "", close_code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.close_code = close_code


class RoomFull(ServerRefused):
    """Every seat of the room is taken (close code 4504)."""


class RoomClosed(ServerRefused):
    """Whoever opened the room has closed it for good (close code 4508): its link is used up."""


class VersionRefused(ServerRefused):
    """The server does not speak this version of the protocol (close code 4506, or HTTP 426)."""


class BadRoom(ServerRefused):
    """The server does not accept the room's name (close code 4507)."""


class SessionReplaced(ServerRefused):
    """Another connection showed this session's key and took it over (close code 4503)."""


class Unauthorized(ServerRefused):
    """The server wants a token, another token, or another origin (close code 4501)."""


class TokenExpired(ServerRefused):
    """The token was good once (close code 4502)."""


class ProtocolRefused(ServerRefused):
    """The server found this client breaking the protocol or its limits (close codes 4500, 4505)."""


class InvalidKey(SignalingError, ValueError):
    """A key can not sign or check tokens."""


class InvalidToken(SignalingError, ValueError):
    """A token does not open the room; ``expired`` if a new one of the same kind would."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class InvalidPolicy(SignalingError, ValueError):
    """What the server is told about who may enter contradicts itself or is not safe."""


class InvalidIceServer(SignalingError, ValueError):
    """A TURN server can not be used as it is given."""


class HookFailed(SignalingError):
    """There was no answer that could be used."""


class InvalidRedisUrl(SignalingError, ValueError):
    """The text is not the URL of a Redis or Valkey server."""


class BusUnreachable(SignalingError, ConnectionError):
    """There is no Redis or Valkey where one should be."""
