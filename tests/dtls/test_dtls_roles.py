"""RFC 8842 section 5.1 to 5.4, RFC 4145 section 4.1: who is client and who is server."""

from __future__ import annotations

import pytest

from ice_punch.dtls import DtlsRole, answer_setup, dtls_role
from ice_punch.errors import InvalidDescription
from ice_punch.sdp import Setup


@pytest.mark.parametrize(
    ("local", "remote", "role"),
    [
        # RFC 8842 section 5.3: an active answerer sends the ClientHello
        (Setup.ACTIVE, Setup.ACTPASS, DtlsRole.CLIENT),
        (Setup.PASSIVE, Setup.ACTPASS, DtlsRole.SERVER),
        # RFC 8842 section 5.4: the offerer's role follows from the answer
        (Setup.ACTPASS, Setup.ACTIVE, DtlsRole.SERVER),
        (Setup.ACTPASS, Setup.PASSIVE, DtlsRole.CLIENT),
        (Setup.ACTIVE, Setup.PASSIVE, DtlsRole.CLIENT),
        (Setup.PASSIVE, Setup.ACTIVE, DtlsRole.SERVER),
    ],
)
def test_setup_attributes_give_the_roles(local: Setup, remote: Setup, role: DtlsRole) -> None:
    assert dtls_role(local, remote) is role


@pytest.mark.parametrize(
    ("local", "remote"),
    [
        (Setup.ACTIVE, Setup.ACTIVE),
        (Setup.PASSIVE, Setup.PASSIVE),
        (Setup.ACTPASS, Setup.ACTPASS),
        *((Setup.HOLDCONN, other) for other in Setup),
        *((other, Setup.HOLDCONN) for other in Setup),
    ],
)
def test_conflicting_or_holdconn_setup_is_refused(local: Setup, remote: Setup) -> None:
    """RFC 4145 section 4.1; RFC 8842 section 5.1: holdconn MUST NOT be used."""
    with pytest.raises(InvalidDescription, match=remote.value):
        dtls_role(local, remote)


@pytest.mark.parametrize("offer", [Setup.ACTPASS, Setup.ACTIVE, Setup.PASSIVE])
def test_every_offer_gets_an_answer_that_settles_the_roles(offer: Setup) -> None:
    """RFC 8842 section 5.3: offers other than actpass are taken too."""
    answer = answer_setup(offer)
    assert {dtls_role(answer, offer), dtls_role(offer, answer)} == set(DtlsRole)


def test_the_answer_to_actpass_is_active() -> None:
    """RFC 8842 section 5.3."""
    assert answer_setup(Setup.ACTPASS) is Setup.ACTIVE


def test_a_holdconn_offer_is_refused() -> None:
    """RFC 8842 section 5.1."""
    with pytest.raises(InvalidDescription, match="holdconn"):
        answer_setup(Setup.HOLDCONN)
