"""The client transaction in virtual time: RFC 8489 sections 6.2, 6.3.3, 6.3.4 and 9.1.4."""

from __future__ import annotations

import pytest
from stun_wire import ERROR, ID, INDICATION, REQUEST, SUCCESS, attribute, raw, with_fingerprint
from stun_wire import with_integrity as signed
from stun_wire import with_integrity_sha256 as signed_sha256

from ice_punch.datagram import Address
from ice_punch.stun import (
    ALTERNATE_SERVER,
    ERROR_CODE,
    PRIORITY,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    USERNAME,
    XOR_MAPPED_ADDRESS,
    ClientTransaction,
    ErrorCode,
    FailureReason,
    Integrity,
    Message,
    MessageClass,
    Method,
    Retransmission,
    TransactionEvent,
    TransactionFailed,
    TransactionSucceeded,
    mapped_address,
    response_to,
)

LOCAL = ("10.0.0.2", 40000)
SERVER = ("192.0.2.1", 3478)
MAPPED = attribute(0x0020, bytes.fromhex("00012c84e112a643"))
KEY = b"secret"
DEFAULT_SENDS = [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]


def binding_request() -> Message:
    request = Message(Method.BINDING, MessageClass.REQUEST, ID)
    request.add(SOFTWARE, "test")
    return request


def transaction(**settings: object) -> ClientTransaction:
    return ClientTransaction(binding_request(), LOCAL, SERVER, 0.0, **settings)  # type: ignore[arg-type]


def drive(client: ClientTransaction) -> tuple[list[float], list[bytes], TransactionEvent, float]:
    """Runs to the end without an answer: when it sent, what, and how it ended."""
    times, datagrams, now = [], [], 0.0
    while True:
        for transmit in client.datagrams_to_send(now):
            assert (transmit.local, transmit.destination) == (LOCAL, SERVER)
            times.append(now)
            datagrams.append(transmit.data)
        event = client.next_event()
        if event is not None:
            return times, datagrams, event, now
        timer = client.get_timer()
        assert timer is not None
        now = timer
        client.handle_timer(now)


def answer(
    client: ClientTransaction,
    data: bytes,
    now: float = 0.02,
    source: Address = SERVER,
    local: Address = LOCAL,
) -> TransactionEvent | None:
    ended = client.receive_datagram(data, source, local, now)
    event = client.next_event()
    assert ended == (event is not None)
    return event


# The schedule


def test_rfc8489_6_2_1_1_sends_at_0_500_1500_3500_7500_15500_31500_ms_and_fails_at_39500() -> None:
    times, _, event, now = drive(transaction())
    assert times == DEFAULT_SENDS
    assert now == 39.5
    assert event == TransactionFailed(FailureReason.TIMEOUT)


def test_rfc8489_5_5_resends_are_byte_for_byte_the_same() -> None:
    for settings in ({}, {"key": KEY}, {"fingerprint": False}):
        _, datagrams, _, _ = drive(transaction(**settings))
        assert len(datagrams) == 7
        assert len(set(datagrams)) == 1
        assert datagrams[0][8:20] == ID


def test_rfc8489_6_2_1_11_rc_is_configurable() -> None:
    times, _, _, now = drive(transaction(rc=3))
    assert times == [0.0, 0.5, 1.5]
    assert now == 1.5 + 16 * 0.5
    times, _, _, now = drive(transaction(rc=1))
    assert times == [0.0]
    assert now == 8.0


def test_rfc8489_6_2_1_13_rm_is_configurable() -> None:
    _, _, _, now = drive(transaction(rm=4))
    assert now == 31.5 + 4 * 0.5


def test_rfc8489_6_2_1_5_rto_is_not_rounded() -> None:
    times, _, _, now = drive(transaction(rto=0.123, rc=3, rm=2))
    assert times == pytest.approx([0.0, 0.123, 0.369])
    assert now == pytest.approx(0.369 + 0.246)


def test_rfc8489_6_2_1_a_late_timer_sends_once_and_keeps_the_next_interval() -> None:
    resend = Retransmission(0.0)
    assert not resend.handle_timer(0.4999)
    assert resend.handle_timer(10.0)
    assert resend.last_sent_at == 10.0
    assert not resend.handle_timer(10.0)
    assert resend.get_timer() == 11.0


def test_retransmission_counts_its_sends() -> None:
    resend = Retransmission(100.0)
    for number, offset in enumerate(DEFAULT_SENDS[1:], start=2):
        assert resend.get_timer() == 100.0 + offset
        assert resend.handle_timer(100.0 + offset)
        assert resend.sends == number
        assert (resend.first_sent_at, resend.last_sent_at) == (100.0, 100.0 + offset)
    assert resend.get_timer() == 139.5
    assert not resend.handle_timer(139.4)
    assert not resend.failed
    assert not resend.handle_timer(139.5)
    assert resend.failed
    assert resend.get_timer() is None
    assert not resend.handle_timer(200.0)


@pytest.mark.parametrize("sends", range(1, 8))
def test_rfc8445_7_3_1_4_a_cancelled_retransmission_ends_at_the_time_it_had(sends: int) -> None:
    resend = Retransmission(0.0)
    for offset in DEFAULT_SENDS[1:sends]:
        assert resend.handle_timer(offset)
    resend.cancel()
    resend.cancel()
    assert resend.get_timer() == 39.5
    assert not resend.handle_timer(39.0)
    assert not resend.failed
    assert not resend.handle_timer(39.5)
    assert resend.failed
    assert resend.sends == sends
    resend.cancel()
    assert resend.get_timer() is None


@pytest.mark.parametrize("settings", [{"rto": 0.0}, {"rto": -1.0}, {"rc": 0}, {"rm": -1}])
def test_a_schedule_that_is_none_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="retransmission"):
        Retransmission(0.0, **settings)  # type: ignore[arg-type]


# Success


def test_a_success_response_ends_the_transaction_with_its_round_trip() -> None:
    client = transaction()
    client.datagrams_to_send(0.0)
    event = answer(client, raw(SUCCESS, MAPPED), 0.123)
    assert isinstance(event, TransactionSucceeded)
    assert event.response.get(XOR_MAPPED_ADDRESS) == ("192.0.2.1", 3478)
    assert event.source == SERVER
    assert event.rtt == 0.123
    assert client.done
    assert client.get_timer() is None
    client.handle_timer(1.0)
    assert client.datagrams_to_send(1.0) == []
    assert answer(client, raw(SUCCESS, MAPPED)) is None


def test_rfc8489_6_2_1_8_a_resent_request_gives_no_round_trip_time() -> None:
    client = transaction()
    client.handle_timer(0.5)
    event = answer(client, raw(SUCCESS, MAPPED), 0.6)
    assert isinstance(event, TransactionSucceeded)
    assert event.rtt is None
    assert client.sends == 2


@pytest.mark.parametrize(
    ("source", "local"),
    [
        (("192.0.2.2", 3478), LOCAL),
        (("192.0.2.1", 3479), LOCAL),
        (SERVER, ("10.0.0.3", 40000)),
        (SERVER, ("10.0.0.2", 40001)),
    ],
)
def test_rfc8489_6_3_a_response_from_or_to_another_address_is_ignored(
    source: Address, local: Address
) -> None:
    client = transaction()
    assert answer(client, raw(SUCCESS, MAPPED), source=source, local=local) is None
    assert not client.done


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 20,
        b"\x80" + bytes(100),
        raw(SUCCESS, MAPPED, id_=bytes(12)),
        raw(SUCCESS, MAPPED)[:-1],
        raw(SUCCESS, MAPPED + b"\0\x24\0\2\0\0\0\0"),
        with_fingerprint(raw(SUCCESS, MAPPED))[:-1] + b"\0",
        raw(REQUEST, MAPPED),
        raw(INDICATION, MAPPED),
        raw(0x0103, MAPPED),
    ],
)
def test_rfc8489_6_3_3_what_is_no_response_to_the_request_is_ignored(data: bytes) -> None:
    client = transaction()
    assert answer(client, data) is None
    times, _, event, _ = drive(client)
    assert times == DEFAULT_SENDS
    assert event == TransactionFailed(FailureReason.TIMEOUT)


def test_rfc5780_7_2_a_response_can_be_awaited_from_another_address() -> None:
    other = ("192.0.2.2", 3479)
    client = transaction(response_source=other)
    assert client.datagrams_to_send(0.0)[0].destination == SERVER
    assert answer(client, raw(SUCCESS, MAPPED)) is None
    event = answer(client, raw(SUCCESS, MAPPED), source=other)
    assert isinstance(event, TransactionSucceeded)
    assert event.source == other


def test_rfc8489_6_3_3_2_a_binding_response_without_any_mapped_address_fails() -> None:
    event = answer(transaction(), raw(SUCCESS))
    assert isinstance(event, TransactionFailed)
    assert event.reason is FailureReason.INVALID_RESPONSE
    unknown_family = attribute(0x0020, bytes.fromhex("0003000000000000"))
    event = answer(transaction(), raw(SUCCESS, unknown_family))
    assert isinstance(event, TransactionFailed)
    event = answer(transaction(), raw(SUCCESS, attribute(1, bytes.fromhex("00010d96c0000201"))))
    assert isinstance(event, TransactionSucceeded)


def test_rfc8489_6_3_3_2_a_server_of_rfc_3489_is_understood() -> None:
    """Its responses hold attributes that RFC 8489 calls reserved, in the required range, and an
    early XOR-MAPPED-ADDRESS in the optional one."""
    address = bytes.fromhex("00010d96c0000201")
    classic = [attribute(t, address) for t in (0x0001, 0x0004, 0x0005, 0x8020)]
    event = answer(transaction(), raw(SUCCESS, *classic, attribute(0x8022, b"Vovida.org 0.96")))
    assert isinstance(event, TransactionSucceeded)
    assert mapped_address(event.response) == ("192.0.2.1", 3478)


def test_other_methods_need_no_mapped_address() -> None:
    request = Message(Method.REFRESH, MessageClass.REQUEST, ID)
    client = ClientTransaction(request, LOCAL, SERVER, 0.0)
    assert isinstance(answer(client, raw(0x0104)), TransactionSucceeded)


# Failure


def test_rfc8489_6_3_3_0_a_success_with_an_unknown_required_attribute_fails() -> None:
    event = answer(transaction(), raw(SUCCESS, MAPPED, attribute(0x7FFF, b"")))
    assert isinstance(event, TransactionFailed)
    assert event.reason is FailureReason.INVALID_RESPONSE
    assert event.response is not None
    assert event.response.unknown_required == (0x7FFF,)


@pytest.mark.parametrize(
    "attributes",
    [
        (),
        (attribute(0x8022, b"x"),),
        (attribute(0x0009, b"\0\0\4\0"), attribute(0x7FFF, b"")),
    ],
)
def test_rfc8489_6_3_4_0_an_error_without_error_code_or_with_unknown_required_fails(
    attributes: tuple[bytes, ...],
) -> None:
    event = answer(transaction(), raw(ERROR, *attributes))
    assert isinstance(event, TransactionFailed)
    assert event.reason is FailureReason.INVALID_RESPONSE


@pytest.mark.parametrize("code", [300, 301, 399, 400, 401, 420, 438, 499, 500, 599, 600, 699])
def test_rfc8489_6_3_4_every_error_response_ends_the_transaction_without_resends(
    code: int,
) -> None:
    """RFC 8489 section 6.3.4: 3xx and 5xx are the caller's to act upon; nothing is sent again."""
    client = transaction()
    response = response_to(client.request, MessageClass.ERROR)
    response.add(ERROR_CODE, ErrorCode(code, "why"))
    response.add(ALTERNATE_SERVER, ("192.0.2.77", 3478))
    response.add(UNKNOWN_ATTRIBUTES, (0x7FFF,))
    event = answer(client, response.to_bytes(), 0.02)
    assert isinstance(event, TransactionFailed)
    assert event.reason is FailureReason.ERROR_RESPONSE
    assert event.rtt == 0.02
    assert event.response is not None
    assert event.response.get(ERROR_CODE) == (code, "why")
    assert event.response.get(ALTERNATE_SERVER) == ("192.0.2.77", 3478)
    assert client.datagrams_to_send(1.0) == []
    assert client.get_timer() is None


def test_rfc8489_6_2_1_14_a_hard_icmp_error_ends_the_transaction() -> None:
    client = transaction()
    client.handle_icmp_error(0.01)
    assert client.next_event() == TransactionFailed(FailureReason.UNREACHABLE)
    assert client.get_timer() is None
    assert client.datagrams_to_send(1.0) == []
    client.handle_icmp_error(0.02)
    assert client.next_event() is None


# Integrity


def test_rfc8489_9_1_4_a_response_with_the_right_key_is_accepted() -> None:
    client = transaction(key=KEY)
    event = answer(client, with_fingerprint(signed(raw(SUCCESS, MAPPED), KEY)))
    assert isinstance(event, TransactionSucceeded)


WRONG_RESPONSES = {
    "unsigned": raw(SUCCESS, MAPPED),
    "other key": signed(raw(SUCCESS, MAPPED), b"other"),
    "signed, then changed": signed(raw(SUCCESS, MAPPED), KEY).replace(MAPPED, MAPPED[:-1] + b"\0"),
    "other algorithm": signed_sha256(raw(SUCCESS, MAPPED), KEY),
    "unsigned error": raw(ERROR, attribute(0x0009, b"\0\0\4\1")),
    "unsigned, unknown required": raw(SUCCESS, attribute(0x7FFF, b"")),
    "mapped after integrity only": signed(raw(SUCCESS), b"other") + MAPPED,
}


@pytest.mark.parametrize("data", WRONG_RESPONSES.values(), ids=WRONG_RESPONSES)
def test_rfc8489_9_1_4_2_a_response_without_the_right_integrity_is_discarded(data: bytes) -> None:
    client = transaction(key=KEY)
    assert answer(client, data) is None
    assert not client.done
    client.handle_timer(0.5)
    assert client.sends == 2, "resends go on"
    event = answer(client, signed(raw(SUCCESS, MAPPED), KEY), 0.6)
    assert isinstance(event, TransactionSucceeded)


def test_rfc8489_9_1_4_3_when_all_responses_were_discarded_integrity_was_violated() -> None:
    client = transaction(key=KEY)
    assert answer(client, WRONG_RESPONSES["unsigned"]) is None
    times, _, event, now = drive(client)
    assert times == DEFAULT_SENDS
    assert now == 39.5
    assert event == TransactionFailed(FailureReason.INTEGRITY_VIOLATION)
    assert client.discarded == 1


def test_rfc8489_9_1_4_1_the_algorithm_of_the_response_is_that_of_the_request() -> None:
    only_256 = {"key": KEY, "algorithms": (Integrity.SHA256,)}
    assert answer(transaction(**only_256), signed(raw(SUCCESS, MAPPED), KEY)) is None
    event = answer(transaction(**only_256), signed_sha256(raw(SUCCESS, MAPPED), KEY))
    assert isinstance(event, TransactionSucceeded)
    assert answer(transaction(**only_256), signed_sha256(raw(SUCCESS, MAPPED), KEY, 16)) is None
    both = {"key": KEY, "algorithms": (Integrity.SHA1, Integrity.SHA256)}
    for sign in (signed, signed_sha256):
        event = answer(transaction(**both), sign(raw(SUCCESS, MAPPED), KEY))
        assert isinstance(event, TransactionSucceeded)
    mixed = signed_sha256(signed(raw(SUCCESS, MAPPED), KEY), b"other")
    assert answer(transaction(**both), mixed) is None, "the stronger one decides"


def test_rfc8489_9_1_2_1_both_integrity_attributes_can_be_sent() -> None:
    request = Message(Method.BINDING, MessageClass.REQUEST, ID)
    request.add(USERNAME, "a:b")
    request.add(PRIORITY, 1)
    client = ClientTransaction(
        request, LOCAL, SERVER, 0.0, key=KEY, algorithms=(Integrity.SHA256, Integrity.SHA1)
    )
    expected = raw(REQUEST, attribute(0x0006, b"a:b"), attribute(0x0024, b"\0\0\0\1"))
    expected = with_fingerprint(signed_sha256(signed(expected, KEY), KEY))
    assert client.datagrams_to_send(0.0)[0].data == expected


# Over TCP


def test_rfc8489_6_2_2_0_and_2_over_a_reliable_transport_there_is_one_send_and_ti() -> None:
    times, _, event, now = drive(transaction(reliable=True))
    assert (times, now) == ([0.0], 39.5)
    assert event == TransactionFailed(FailureReason.TIMEOUT)
    times, _, _, now = drive(transaction(reliable=True, ti=3.0))
    assert (times, now) == ([0.0], 3.0)


def test_rfc8489_9_1_4_4_over_a_reliable_transport_wrong_integrity_ends_it_at_once() -> None:
    client = transaction(reliable=True, key=KEY)
    event = answer(client, WRONG_RESPONSES["other key"])
    assert event == TransactionFailed(FailureReason.INTEGRITY_VIOLATION)
    assert client.done
