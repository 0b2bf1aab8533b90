"""The seeds of the corpus, which ``seeds.py`` writes; beside them is what fuzzing has found."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(path) for path in Path(__file__).resolve().parents[:3]]

from fuzz_agent import GENERATIONS, OURS, PEER, Kind, Record
from stun_repair import fingerprinted, signed

from ice_punch.datagram import Address
from ice_punch.ice.binding import check_request
from ice_punch.stun import (
    CHANGE_REQUEST,
    CHANNEL_NUMBER,
    DATA,
    ERROR_CODE,
    LIFETIME,
    NONCE,
    PADDING,
    PASSWORD_ALGORITHMS,
    REALM,
    RESPONSE_PORT,
    SOFTWARE,
    UNKNOWN_ATTRIBUTES,
    XOR_MAPPED_ADDRESS,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    AlgorithmParameters,
    ChangeRequest,
    ErrorCode,
    Integrity,
    Message,
    MessageClass,
    Method,
    long_term_key,
)

ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
KEY = b"VOkJxbRl1RmTxUk/WvJxBt"

RFC5769 = {
    "rfc5769-2.1-request": (
        "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74"
        "002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020"
        "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
    ),
    "rfc5769-2.2-ipv4-response": (
        "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
        "002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
        "80280004c07d4c96"
    ),
    "rfc5769-2.3-ipv6-response": (
        "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
        "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
        "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
    ),
    "rfc5769-2.4-long-term-request": (
        "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b9"
        "00000015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341"
        "0014000b6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
    ),
    "rfc8489-b.1-sha256-request": (
        "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f"
        "24819415569e60b205c46e41407f170400150029"
        "6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c3946535476793634734100"
        "00000014000b6578616d706c652e6f726700001d000400020000001c0020"
        "b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
    ),
}


def _message(method: int, class_: MessageClass, *attributes: tuple[object, object]) -> Message:
    message = Message(method, class_, ID)
    for kind, value in attributes:
        message.add(kind, value)  # type: ignore[arg-type]
    return message


def _raw(type_: int, *attributes: tuple[int, bytes]) -> bytes:
    """STUN with attributes that we do not write ourselves."""
    body = b"".join(
        kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    head = type_.to_bytes(2, "big") + len(body).to_bytes(2, "big")
    return head + bytes.fromhex("2112a442") + ID + body


def check(
    *,
    controlling: bool = True,
    nominate: bool = False,
    nomination: int = 0,
    generation: int = 0,
    id_: bytes = ID,
) -> bytes:
    """A check as the peer of ``fuzz_agent`` sends it."""
    ours, peer = GENERATIONS[generation]
    return check_request(
        id_,
        local_ufrag=peer.ufrag,
        remote=ours,
        priority=1862270975,
        controlling=controlling,
        tie_breaker=2**63,
        nominate=nominate,
        nomination=nomination,
    )


def answer(mapped: Address = ("192.0.2.1", 5000)) -> bytes:
    message = _message(Method.BINDING, MessageClass.SUCCESS, (XOR_MAPPED_ADDRESS, mapped))
    return message.to_bytes(key=PEER.key)


def error(code: int, reason: str) -> bytes:
    refusal = _message(Method.BINDING, MessageClass.ERROR, (ERROR_CODE, ErrorCode(code, reason)))
    return refusal.to_bytes(key=PEER.key)


def messages() -> dict[str, bytes]:
    request, success, failure = MessageClass.REQUEST, MessageClass.SUCCESS, MessageClass.ERROR
    indication = MessageClass.INDICATION
    user_key = long_term_key("user", "example.org", "pass")
    realm, nonce = (REALM, "example.org"), (NONCE, "obMatJos2gAAA" + "n" * 16)
    ours = f"{OURS.ufrag}:{PEER.ufrag}".encode()
    libwebrtc = _raw(
        0x0001,
        (0x0006, ours),
        (0xC057, bytes.fromhex("0001000a")),
        (0x802A, bytes(7) + b"\1"),
        (0x0025, b""),
        (0x0024, bytes.fromhex("6e7f1eff")),
    )
    return {
        **{name: bytes.fromhex(text) for name, text in RFC5769.items()},
        "check-controlling": check(),
        "check-controlled": check(controlling=False),
        "check-nominating": check(nominate=True),
        "check-of-libwebrtc": fingerprinted(signed(libwebrtc, KEY)),
        "check-of-libwebrtc-goog-ping": _raw(0x0200, (0x0008, bytes(20))),
        "check-with-renomination": _raw(0x0001, (0x0006, ours), (0xC001, bytes(4))),
        "check-with-unknown-required": _raw(0x0001, (0x0006, ours), (0x7FFE, b"what")),
        "answer-ipv4": answer(),
        "answer-ipv6": answer(("2001:db8::1", 5000)),
        "answer-of-rfc3489-server": _raw(
            0x0101,
            (0x0001, bytes.fromhex("000115b3c0000201")),
            (0x0004, bytes.fromhex("00010d96c6336401")),
            (0x0005, bytes.fromhex("00010d97c6336402")),
        ),
        "answer-of-coturn-with-other-address": _raw(
            0x0101,
            (0x0020, bytes.fromhex("0001a147e112a643")),
            (0x802B, bytes.fromhex("00010d96c6336401")),
            (0x802C, bytes.fromhex("00010d97c6336402")),
            (0x8022, b"Coturn-4.6.1 'Gorst'"),
        ),
        "answer-of-unknown-family": _raw(0x0101, (0x0020, bytes.fromhex("0003a147e112a643"))),
        "error-487": error(487, "Role Conflict"),
        "error-420": _message(
            Method.BINDING,
            failure,
            (ERROR_CODE, ErrorCode(420, "Unknown")),
            (UNKNOWN_ATTRIBUTES, (0x7FFE, 0x7FFD)),
        ).to_bytes(),
        "error-401-with-realm-and-nonce": _message(
            Method.ALLOCATE,
            failure,
            (ERROR_CODE, ErrorCode(401, "Unauthorized")),
            realm,
            nonce,
            (PASSWORD_ALGORITHMS, (AlgorithmParameters(2), AlgorithmParameters(1))),
        ).to_bytes(),
        "error-300-alternate-server": _raw(
            0x0111,
            (0x0009, b"\0\0\3\0Try Alternate"),
            (0x8023, bytes.fromhex("00010d97c6336402")),
            (0x8003, b"stun.example.org"),
        ),
        "binding-request-bare": _message(Method.BINDING, request).to_bytes(),
        "binding-request-change-ip": _message(
            Method.BINDING, request, (CHANGE_REQUEST, ChangeRequest(True, True))
        ).to_bytes(fingerprint=False),
        "binding-request-response-port-and-padding": _message(
            Method.BINDING, request, (RESPONSE_PORT, 40000), (PADDING, bytes(64))
        ).to_bytes(),
        "binding-indication": _message(
            Method.BINDING, indication, (SOFTWARE, "keepalive")
        ).to_bytes(),
        "turn-allocate": _message(Method.ALLOCATE, request, realm, nonce, (LIFETIME, 600)).to_bytes(
            key=user_key
        ),
        "turn-allocate-answer": _message(
            Method.ALLOCATE,
            success,
            (XOR_RELAYED_ADDRESS, ("203.0.113.1", 40000)),
            (XOR_MAPPED_ADDRESS, ("192.0.2.1", 5000)),
            (LIFETIME, 600),
        ).to_bytes(key=user_key, algorithms=(Integrity.SHA256,)),
        "turn-create-permission-two-peers": _message(
            Method.CREATE_PERMISSION,
            request,
            (XOR_PEER_ADDRESS, ("198.51.100.1", 0)),
            (XOR_PEER_ADDRESS, ("2001:db8::2", 0)),
        ).to_bytes(key=user_key),
        "turn-channel-bind": _message(
            Method.CHANNEL_BIND,
            request,
            (CHANNEL_NUMBER, 0x4000),
            (XOR_PEER_ADDRESS, ("198.51.100.1", 6000)),
        ).to_bytes(key=user_key),
        "turn-data-indication-with-icmp": _raw(
            0x0017,
            (0x0012, bytes.fromhex("0001a147e112a643")),
            (0x8004, bytes.fromhex("0000060300000000")),
        ),
        "turn-send-indication": _message(
            Method.SEND,
            indication,
            (XOR_PEER_ADDRESS, ("198.51.100.1", 6000)),
            (DATA, check()),
        ).to_bytes(),
        "integrity-sha1-and-sha256": _message(Method.BINDING, request).to_bytes(
            key=KEY, algorithms=tuple(Integrity)
        ),
        "integrity-sha256-cut-to-16": _raw(0x0001, (0x001C, bytes(16))),
        "attribute-after-integrity": _raw(0x0001, (0x0008, bytes(20)), (0x0024, bytes(4))),
        "attribute-overruns": _raw(0x0001)[:2] + b"\0\4" + _raw(0x0001)[4:] + b"\0\6\xff\xff",
        "address-twice": _raw(
            0x0101,
            (0x0020, bytes.fromhex("0001a147e112a643")),
            (0x0020, bytes.fromhex("0001ffff01020304")),
        ),
    }


STUN_ANSWER = Record(Kind.FORGED_ANSWER, 0, 1, answer(("203.0.113.7", 61000)))
HOST = b"candidate:1 1 udp 2130706431 198.51.100.1 6000 typ host"
SRFLX = b"candidate:2 1 udp 1694498815 203.0.113.9 1024 typ srflx raddr 10.0.0.1 rport 5000"
RELAY = b"candidate:3 1 udp 16777215 198.51.100.2 7000 typ relay raddr 0.0.0.0 rport 9"
SECOND = b"candidate:1 2 udp 2130706430 198.51.100.1 6001 typ host"
CONTROLLING, SMALL, TWO_COMPONENTS, DIRECT_ONLY, MET, RENOMINATION = 1, 2, 4, 8, 16, 32

TOLD = Record(Kind.CANDIDATE, 0, 0, HOST)
ANSWERED = Record(Kind.ANSWER, 0, 1, answer())
CHECKED = Record(Kind.CHECK, 0, 1, check())
CHECKED_AS_CONTROLLED = Record(Kind.CHECK, 0, 1, check(controlling=False))
NOMINATED = Record(Kind.CHECK, 0, 1, check(nominate=True, id_=b"nominated..."))
LATER = Record(Kind.TIME, 0, 205)
"""Ten seconds."""
MET_AGAIN = Record(Kind.PARAMETERS, 2)
CHECKED_AGAIN = Record(Kind.CHECK, 0, 1, check(generation=1))
NOMINATED_AGAIN = Record(Kind.CHECK, 0, 1, check(nominate=True, generation=1, id_=b"again......."))
ANSWERED_BEFORE = Record(Kind.ANSWER, 32, 0, answer())
"""The request before the latest one."""


def _script(flags: int, *script: Record) -> bytes:
    return bytes([flags]) + b"".join(record.to_bytes() for record in script)


def scripts() -> dict[str, bytes]:
    many = [
        Record(
            Kind.CANDIDATE,
            payload=b"candidate:%d 1 udp %d 198.51.100.3 %d typ host"
            % (n, 2**31 - 1 - n, 7000 + n),
        )
        for n in range(30)
    ]
    flood = [Record(Kind.CHECK, n & 7, 0, check(id_=n.to_bytes(12, "big"))) for n in range(40)]
    return {
        "controlled-and-nominated": _script(MET, TOLD, CHECKED, ANSWERED, NOMINATED, ANSWERED),
        "controlling-and-answered": _script(
            MET | CONTROLLING, TOLD, ANSWERED, LATER, ANSWERED, ANSWERED
        ),
        "consent-kept": _script(
            MET,
            TOLD,
            ANSWERED,
            NOMINATED,
            *[LATER, ANSWERED] * 5,
            Record(Kind.DATAGRAM, 0, 0, b"x"),
        ),
        "consent-revoked-403": _script(
            MET, TOLD, ANSWERED, NOMINATED, LATER, Record(Kind.ANSWER, 0, 0, error(403, "No"))
        ),
        "consent-lost": _script(MET, TOLD, ANSWERED, NOMINATED, *[LATER] * 5, NOMINATED, ANSWERED),
        "early-checks-then-parameters": _script(
            0, CHECKED, NOMINATED, Record(Kind.PARAMETERS, 0, 8), ANSWERED, ANSWERED
        ),
        "early-checks-too-many": _script(SMALL, *flood, Record(Kind.PARAMETERS, 0, 8), ANSWERED),
        "role-conflict-resolved-by-487": _script(
            MET | CONTROLLING,
            TOLD,
            Record(Kind.ANSWER, 0, 1, error(487, "Role Conflict")),
            ANSWERED,
        ),
        "role-conflict-in-a-check": _script(MET, TOLD, CHECKED_AS_CONTROLLED, ANSWERED, CHECKED),
        "role-conflict-without-end": _script(
            MET, TOLD, *[Record(Kind.ANSWER, 0, 1, error(487, "Role Conflict"))] * 12
        ),
        "peer-reflexive": _script(
            MET, Record(Kind.CHECK, 2, 1, check()), ANSWERED, Record(Kind.CANDIDATE, payload=SRFLX)
        ),
        "peer-reflexive-of-both": _script(
            MET,
            Record(Kind.CHECK, 2, 1, check(nominate=True)),
            Record(Kind.ANSWER, 0, 1, answer(("203.0.113.7", 61000))),
        ),
        "peer-reflexive-ipv6": _script(MET, Record(Kind.CHECK, 8 | 3, 1, check()), ANSWERED),
        "two-nominations": _script(
            MET,
            TOLD,
            Record(Kind.CANDIDATE, payload=SRFLX),
            ANSWERED,
            NOMINATED,
            Record(Kind.CHECK, 2, 1, check(nominate=True)),
            ANSWERED,
        ),
        "trickled-late": _script(MET, LATER, TOLD, ANSWERED, LATER, Record(Kind.END_OF_CANDIDATES)),
        "too-many-candidates": _script(MET | SMALL, *many, ANSWERED),
        "too-many-checks-of-strange-ports": _script(MET | SMALL, TOLD, *flood, ANSWERED),
        "candidate-of-a-wrong-component": _script(
            MET, Record(Kind.CANDIDATE, payload=SECOND), ANSWERED
        ),
        "two-components": _script(
            MET | TWO_COMPONENTS,
            TOLD,
            Record(Kind.CANDIDATE, payload=SECOND),
            ANSWERED,
            Record(Kind.ANSWER, 32, 1, answer()),
            NOMINATED,
        ),
        "relay-refused": _script(
            MET | DIRECT_ONLY,
            Record(Kind.CHECK, 6, 1, check(nominate=True)),
            ANSWERED,
            Record(Kind.CANDIDATE, payload=RELAY),
            Record(Kind.CHECK, 6, 1, check()),
        ),
        "relay-of-ours": _script(MET | CONTROLLING, Record(Kind.RELAY, 1), TOLD, ANSWERED, LATER),
        "lite-peer": _script(0, Record(Kind.PARAMETERS, 1, 1), TOLD, ANSWERED, ANSWERED),
        "server-query": _script(
            0, Record(Kind.QUERY), STUN_ANSWER, Record(Kind.PARAMETERS), TOLD, ANSWERED
        ),
        "server-changes-its-mind": _script(
            0,
            Record(Kind.QUERY),
            STUN_ANSWER,
            LATER,
            LATER,
            Record(Kind.FORGED_ANSWER, 0, 1, answer(("203.0.113.7", 61001))),
        ),
        "server-of-rfc3489": _script(
            0,
            Record(Kind.QUERY),
            Record(Kind.FORGED_ANSWER, 0, 1, messages()["answer-of-rfc3489-server"]),
        ),
        "server-unreachable": _script(0, Record(Kind.QUERY), Record(Kind.ICMP_ERROR, 5)),
        "symmetric-nat-knocks": _script(
            CONTROLLING,
            Record(Kind.QUERY),
            STUN_ANSWER,
            Record(Kind.QUERY),
            Record(Kind.FORGED_ANSWER, 0, 1, answer(("203.0.113.7", 61001))),
            Record(Kind.PARAMETERS),
            Record(Kind.CANDIDATE, payload=SRFLX),
            *[Record(Kind.TIME, 0, 4)] * 12,
        ),
        "answer-from-elsewhere": _script(MET, TOLD, Record(Kind.ANSWER, 16 | 2, 1, answer())),
        "answer-without-integrity": _script(MET, TOLD, Record(Kind.FORGED_ANSWER, 0, 1, answer())),
        "answer-twice": _script(
            MET, TOLD, ANSWERED, ANSWERED, Record(Kind.ANSWER, 32, 1, answer())
        ),
        "icmp-error": _script(MET, TOLD, Record(Kind.ICMP_ERROR), CHECKED, ANSWERED),
        "check-of-libwebrtc": _script(
            MET, Record(Kind.CHECK, 0, 1, messages()["check-of-libwebrtc"]), ANSWERED
        ),
        "check-with-sha256": _script(MET, Record(Kind.CHECK, 16, 1, check()), ANSWERED),
        "check-with-unknown-required": _script(
            MET, Record(Kind.CHECK, 0, 1, messages()["check-with-unknown-required"])
        ),
        "datagrams-of-strangers": _script(
            MET,
            Record(Kind.DATAGRAM, 4, 0, bytes.fromhex(RFC5769["rfc5769-2.1-request"])),
            Record(Kind.DATAGRAM, 4, 0, b"\x16\xfe\xff" + bytes(20)),
            Record(Kind.DATAGRAM, 7, 0, check()),
            Record(Kind.DATAGRAM, 0, 0, b""),
        ),
        "closed-early": _script(MET, TOLD, Record(Kind.CLOSE), CHECKED, ANSWERED, NOMINATED),
        "patience-over": _script(MET, TOLD, *[LATER] * 6),
        **_restarts(),
        **_renominations(),
    }


def _restarts() -> dict[str, bytes]:
    connected = (TOLD, ANSWERED, NOMINATED)
    restart = (Record(Kind.RESTART), MET_AGAIN, TOLD)
    data = Record(Kind.DATAGRAM, 0, 0, b"data")
    return {
        "restart": _script(
            MET, *connected, *restart, ANSWERED, NOMINATED_AGAIN, ANSWERED, data, LATER, ANSWERED
        ),
        "restart-early-checks": _script(
            MET, *connected, Record(Kind.RESTART), CHECKED_AGAIN, NOMINATED_AGAIN, *restart[1:]
        ),
        "restart-nobody-answers": _script(
            MET, *connected, Record(Kind.RESTART), *[LATER, ANSWERED] * 8, data
        ),
        "restart-finds-nothing": _script(
            MET, *connected, *restart, *[LATER, ANSWERED, ANSWERED_BEFORE] * 5
        ),
        "restart-checks-of-both-generations": _script(
            MET,
            *connected,
            *restart,
            Record(Kind.CHECK, 32, 0, check()),
            CHECKED_AGAIN,
            Record(Kind.CHECK, 32, 0, check(nominate=True)),
            ANSWERED,
            ANSWERED_BEFORE,
        ),
        "restart-controlling": _script(
            MET | CONTROLLING | RENOMINATION,
            *(TOLD, ANSWERED, ANSWERED),
            *restart,
            *[ANSWERED, Record(Kind.TIME, 0, 16)] * 3,
        ),
        "restart-twice": _script(
            MET, *connected, *restart, Record(Kind.RESTART), MET_AGAIN, TOLD, ANSWERED, LATER
        ),
        "restart-with-fresh-sockets": _script(
            MET,
            *connected,
            Record(Kind.RESTART, 1),
            Record(Kind.ADD_BASE, 0),
            *restart[1:],
            NOMINATED_AGAIN,
            ANSWERED,
        ),
        "restart-after-the-end": _script(
            MET, *connected, *[LATER] * 5, Record(Kind.REMOVE_BASE, 8), *restart, ANSWERED, LATER
        ),
        "restart-at-an-instant": _script(
            MET, *connected, Record(Kind.RESTART), Record(Kind.PARAMETERS, 4, 8), TOLD, LATER
        ),
    }


def _renominations() -> dict[str, bytes]:
    other = Record(Kind.CANDIDATE, payload=SRFLX)
    first = Record(Kind.CHECK, 2, 1, check(nominate=True, nomination=1, id_=b"first......."))
    second = Record(Kind.CHECK, 0, 1, check(nominate=True, nomination=2, id_=b"second......"))
    busy = [Record(Kind.DATA, 16), Record(Kind.TIME, 0, 8)]
    return {
        "renominated": _script(
            MET | RENOMINATION, TOLD, other, ANSWERED, NOMINATED, first, ANSWERED, second, first
        ),
        "renomination-outdated": _script(
            MET | RENOMINATION, TOLD, other, ANSWERED, second, first, NOMINATED, ANSWERED
        ),
        "renomination-unannounced": _script(MET, TOLD, other, ANSWERED, second, first, ANSWERED),
        "renomination-of-a-silent-path": _script(
            MET | RENOMINATION | CONTROLLING,
            *(TOLD, other, ANSWERED, ANSWERED_BEFORE, ANSWERED, ANSWERED),
            *busy * 6,
            *(ANSWERED_BEFORE, ANSWERED) * 2,
            *busy * 6,
            ANSWERED,
        ),
        "port-moved": _script(
            MET,
            *(TOLD, ANSWERED, NOMINATED),
            Record(Kind.TIME, 0, 8),
            Record(Kind.DATA, 1),
            ANSWERED,
            Record(Kind.DATAGRAM, 1, 0, b"data"),
        ),
        "interface-gone-and-another-there": _script(
            MET,
            *(TOLD, ANSWERED, NOMINATED),
            Record(Kind.REMOVE_BASE),
            LATER,
            Record(Kind.ADD_BASE),
            LATER,
        ),
        "address-from-turn": _script(
            0, Record(Kind.MAPPED, 2), Record(Kind.MAPPED, 6), Record(Kind.PARAMETERS), TOLD, LATER
        ),
    }


SEEDS = {"message": messages, "agent": scripts}


def main() -> None:
    for target, made in SEEDS.items():
        folder = Path(__file__).resolve().parent / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in made().items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
