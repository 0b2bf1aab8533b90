"""Who is DTLS client and who is server, from the ``setup`` attributes (RFC 8842, RFC 4145)."""

from __future__ import annotations

from enum import Enum

from ice_punch.errors import InvalidDescription
from ice_punch.sdp import Setup


class DtlsRole(Enum):
    """The client sends the first handshake message."""

    CLIENT = "client"
    SERVER = "server"


def dtls_role(local: Setup, remote: Setup) -> DtlsRole:
    """Our role, once both descriptions are known.

    Raises `InvalidDescription` where the two values fix no roles: ``holdconn`` (RFC 8842
    section 5.1), twice ``actpass``, or twice the same role (RFC 4145 section 4.1).
    """
    match local, remote:
        # RFC 8842 section 5.3, 5.4: active is the client, and sends the ClientHello
        case (Setup.ACTIVE, Setup.PASSIVE | Setup.ACTPASS) | (Setup.ACTPASS, Setup.PASSIVE):
            return DtlsRole.CLIENT
        case (Setup.PASSIVE, Setup.ACTIVE | Setup.ACTPASS) | (Setup.ACTPASS, Setup.ACTIVE):
            return DtlsRole.SERVER
    raise InvalidDescription(
        f"setup:{local.value} here and setup:{remote.value} there give no DTLS roles"
    )


def answer_setup(offer: Setup) -> Setup:
    """The ``setup`` value of an answer to an offer with the value given.

    Raises `InvalidDescription` for ``holdconn`` (RFC 8842 section 5.1).
    """
    if offer is Setup.HOLDCONN:
        raise InvalidDescription("setup:holdconn is not for DTLS (RFC 8842 section 5.1)")
    # RFC 8842 section 5.3: offers other than actpass are taken too. An active answerer saves a
    # round trip, because its ClientHello need not wait for the answer to arrive.
    return Setup.PASSIVE if offer is Setup.ACTIVE else Setup.ACTIVE
