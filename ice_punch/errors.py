"""Every exception this package raises to its users. Each is one line, most carry a report."""

from __future__ import annotations

from typing import Self

from ice_punch.diagnosis import Diagnosis, diagnose
from ice_punch.report import Report


class IcePunchError(Exception):
    """Base of all errors below."""

    def __init__(
        self,
        message: str,
        report: Report | None = None,
        *,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        super().__init__(message)
        self.report = report
        self.diagnosis = diagnosis
        """What the report comes to, where that is why. The message says it too."""

    @classmethod
    def explained(cls, report: Report, what: str = "") -> Self:
        """With the diagnosis of ``report`` as its message, after ``what`` happened."""
        diagnosis = diagnose(report)
        message = f"{what}: {diagnosis}" if what else str(diagnosis)
        return cls(message, report, diagnosis=diagnosis)


class InvalidConfiguration(IcePunchError, ValueError):
    """An argument that can not be used: a bad URI, an unknown interface, contradictory switches."""


class InterfaceNotFound(InvalidConfiguration):
    """The interface asked for does not exist or has no usable address."""


class PortRangeExhausted(IcePunchError, OSError):
    """Every port of the range given is taken."""


class InvalidDescription(IcePunchError, ValueError):
    """A session description or candidate line breaks the grammar of RFC 8839, 8842 or 8122."""


class RestartRefused(IcePunchError):
    """An ICE restart at the wrong time: nothing has connected yet, or another one is under way."""


class GatheringFailed(IcePunchError):
    """No local candidate of any kind could be gathered."""


class AuthenticationRejected(IcePunchError):
    """A TURN server refused the user name or password."""


class RelayDenied(IcePunchError):
    """A TURN server refused the allocation for a reason other than the password."""


class ServerUnreachable(IcePunchError):
    """A STUN or TURN server can not be reached: no address, no answer, or a refused connection."""

    def __init__(
        self,
        message: str,
        report: Report | None = None,
        *,
        diagnosis: Diagnosis | None = None,
        outcome: str = "unreachable",
    ) -> None:
        super().__init__(message, report, diagnosis=diagnosis)
        self.outcome = outcome
        """As in ``ServerReport``: ``unreachable``, ``silent`` or ``unresolved``."""


class NoRoute(IcePunchError):
    """The peer spoke, to us or through signaling, and no candidate pair works (RFC 8445 section
    8.1.2, RFC 8863)."""


class PeerSilent(IcePunchError):
    """The peer was never heard on any candidate pair."""


class ConsentLost(IcePunchError):
    """The peer stopped answering consent checks for 30 s, or revoked consent (RFC 7675)."""


class HandshakeFailed(IcePunchError):
    """DTLS could not be agreed: an alert, a timeout, or no common version or cipher."""


class FingerprintMismatch(HandshakeFailed):
    """The peer's certificate is not the one its description announced (RFC 8122 section 6.2)."""


class DatagramTooLarge(IcePunchError, ValueError):
    """The datagram does not fit the path."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a datagram of {size} bytes is too large for this path (limit {limit})")
        self.size = size
        self.limit = limit


class MessageTooLarge(IcePunchError, ValueError):
    """The message is larger than the peer takes (``a=max-message-size``, RFC 8841 section 6)."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is larger than the peer takes (limit {limit})")
        self.size = size
        self.limit = limit


class TransferFailed(IcePunchError):
    """A file did not arrive, or not as it was sent: refused, cancelled, cut short, or altered."""


class ExtraMissing(IcePunchError, ImportError):
    """Something needs an optional part of this package. The message names how to install it."""


class DatagramRefused(IcePunchError, ValueError):
    """A plain datagram that looks like STUN would be taken for STUN by the peer (RFC 7983)."""


class DetachFailed(IcePunchError):
    """There is no socket that could be given away: the path goes through a relay."""


class ChannelClosed(IcePunchError, ConnectionError):
    """The channel was closed, by this side or by the peer."""


class SignalingFailed(IcePunchError, ConnectionError):
    """The signaling server can not be reached, refused us, or went away for good."""


class InvalidLink(InvalidConfiguration):
    """The link is not one that ``listen`` made: no secret, no room, or no server."""


class InvalidRecording(InvalidConfiguration):
    """A recording that can not be replayed. ``RecordingVersionMismatch``, ``RecordingCutShort`` and
    ``RecordingAltered`` are the recordings among them; the rest are other files."""


class RecordingVersionMismatch(InvalidRecording):
    """A recording in a format of another version than the one that is read here."""


class RecordingCutShort(InvalidRecording):
    """A recording without its end: the program was killed, or the file not copied whole."""

    def __init__(self, message: str, *, inputs: int) -> None:
        super().__init__(message)
        self.inputs = inputs
        """How many inputs of the agent there are."""


class RecordingAltered(InvalidRecording):
    """A recording that says something else than what its agent does when it runs again."""

    def __init__(self, message: str, *, input: int, at: float | None = None) -> None:
        super().__init__(message)
        self.input = input
        """The number of the input, from 1, after which it shows; 0: before the first."""
        self.at = at
        """Seconds from the first input; None where no input is to blame."""


class WrongSecret(IcePunchError):
    """The peer could not open what we sealed, or we what it sealed: the secrets differ."""
