"""Checks and their answers, of parts that are remembered, are those that ``Message`` makes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ice_punch.datagram import Address
from ice_punch.ice.binding import Credentials, check_request, success_response
from ice_punch.stun import (
    ICE_CONTROLLED,
    ICE_CONTROLLING,
    NOMINATION,
    PRIORITY,
    USE_CANDIDATE,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    Integrity,
    Message,
    MessageClass,
    Method,
    parse_message,
    response_to,
    short_term_key,
)

ice_characters = st.text("abcXYZ019+/", min_size=4, max_size=40)
ids = st.binary(min_size=12, max_size=12)


@settings(deadline=None)
@given(
    ids,
    ice_characters,
    st.builds(Credentials, ice_characters, ice_characters),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.sampled_from([0, 0, 1, 2**32 - 1]),
)
def test_rfc8445_7_2_2_a_check_is_what_message_makes(
    id_: bytes,
    ufrag: str,
    remote: Credentials,
    priority: int,
    controlling: bool,
    tie_breaker: int,
    nominate: bool,
    nomination: int,
) -> None:
    expected = Message(Method.BINDING, MessageClass.REQUEST, id_)
    expected.add(USERNAME, f"{remote.ufrag}:{ufrag}")
    expected.add(PRIORITY, priority)
    expected.add(ICE_CONTROLLING if controlling else ICE_CONTROLLED, tie_breaker)
    if nominate:
        expected.add(USE_CANDIDATE, True)
    if nomination:
        expected.add(NOMINATION, nomination)
    for _ in range(2):  # the second time from what is remembered
        check = check_request(
            id_,
            local_ufrag=ufrag,
            remote=remote,
            priority=priority,
            controlling=controlling,
            tie_breaker=tie_breaker,
            nominate=nominate,
            nomination=nomination,
        )
        assert check == expected.to_bytes(key=short_term_key(remote.pwd))


@settings(deadline=None)
@given(
    ids,
    st.tuples(st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str), st.integers(0, 65535)),
    st.binary(min_size=1, max_size=80),
    st.sets(st.sampled_from(Integrity), min_size=1),
)
def test_rfc8445_7_3_1_2_an_answer_is_what_message_makes(
    id_: bytes, source: Address, key: bytes, algorithms: set[Integrity]
) -> None:
    asked = Message(Method.BINDING, MessageClass.REQUEST, id_)
    request = parse_message(asked.to_bytes(key=key, algorithms=algorithms))
    expected = response_to(request, MessageClass.SUCCESS)
    expected.add(XOR_MAPPED_ADDRESS, source)
    strongest = Integrity.SHA256 if Integrity.SHA256 in algorithms else Integrity.SHA1
    assert success_response(request, source, key) == expected.to_bytes(
        key=key, algorithms=(strongest,)
    )
