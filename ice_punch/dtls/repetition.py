"""Sending the last flight again, by our own time and the round trip that ICE measured."""

from __future__ import annotations

from ice_punch.dtls import records

_INITIAL_WITHOUT_RTT = 1.0
_LEAST_INTERVAL = 0.05
_GREATEST_INTERVAL = 60.0
_ALERT_REPEATS = 5
_ALERT_INTERVAL = 0.25


class Repetition:
    """Repeats whole flights, byte for byte, beside OpenSSL's own retransmission.

    OpenSSL's timer starts at 1 s and can not be told what ICE knows: RFC 9147 section 5.8.2 wants
    1.5 times that round trip. A copy of a datagram is what a network makes too: where the first
    was lost it takes its place, where not the peer's replay window drops it (RFC 6347 section
    4.1.2.6). What only a new record sequence number can cure is left to OpenSSL.
    """

    __slots__ = (
        "_alert",
        "_alert_not_before",
        "_alerts_left",
        "_at",
        "_flight",
        "_interval",
        "_is_last",
        "_not_before",
    )

    def __init__(self, rtt: float | None) -> None:
        self._interval = (
            _INITIAL_WITHOUT_RTT
            if rtt is None
            else min(max(1.5 * rtt, _LEAST_INTERVAL), _GREATEST_INTERVAL)
        )
        self._flight: list[bytes] = []
        self._is_last = False
        self._at: float | None = None
        self._not_before = float("-inf")
        self._alert: list[bytes] = []
        self._alert_not_before = float("-inf")
        self._alerts_left = _ALERT_REPEATS

    @property
    def has_flight(self) -> bool:
        """Whether anything was ever sent."""
        return bool(self._flight)

    def start(self, flight: list[bytes], now: float) -> None:
        """A new flight was sent."""
        self._flight = flight
        self._at = now + self._interval

    def renew(self, flight: list[bytes], now: float) -> None:
        """OpenSSL has sent the flight again, in new records."""
        self._flight = flight
        self._back_off(now)

    def get_timer(self) -> float | None:
        return self._at

    def handle_timer(self, now: float) -> list[bytes]:
        """The flight, if it is due again."""
        if self._at is None or now < self._at:
            return []
        self._back_off(now)
        return self._flight

    def _back_off(self, now: float) -> None:
        # RFC 6347 section 4.2.4.1: doubled at each retransmission, and then retained
        self._interval = min(2 * self._interval, _GREATEST_INTERVAL)
        self._at = now + self._interval

    def finish(self, ours_was_last: bool) -> None:
        """The handshake is complete: no timer runs any more (RFC 6347 section 4.2.4)."""
        self._at = None
        self._is_last = ours_was_last
        if not ours_was_last:
            self._flight = []

    def last_flight_again(self, record: bytes, now: float) -> list[bytes]:
        """The last flight of the handshake, if the peer's own repeated flight asks for it.

        RFC 6347 section 4.2.4, for a repetition that OpenSSL dropped as a replay.
        """
        if not self._is_last or record[0] != records.HANDSHAKE or now < self._not_before:
            return []
        self._not_before = now + self._interval
        return self._flight

    def forget(self) -> None:
        """The peer has spoken as one who has our last flight."""
        self._is_last = False
        self._flight = []

    def keep_alert(self, alert: list[bytes]) -> None:
        """The alert that ended the association."""
        self._alert = alert

    def alert_again(self, datagram: bytes, now: float) -> list[bytes]:
        """The alert, for a peer that seems not to have got it (RFC 6347 section 4.2.7)."""
        if (
            not self._alerts_left
            or datagram[:1] not in (b"\x16", b"\x17")
            or now < self._alert_not_before
        ):
            return []
        self._alerts_left -= 1
        self._alert_not_before = now + _ALERT_INTERVAL
        return self._alert
