"""What a recording may say: passwords never, addresses on request not.

Both are replaced, not blotted out, so that an agent does with the recording what it did with the
originals: messages are signed anew, and what was wrongly signed stays so.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import deque
from dataclasses import replace

import msgspec

from ice_punch.datagram import Address
from ice_punch.ice import Candidate, Credentials
from ice_punch.recording import lines
from ice_punch.recording.messages import Keys, masked, rewritten
from ice_punch.recording.pseudonyms import Pseudonyms, without_userinfo
from ice_punch.report import PairReport, Report, ServerReport

_ICE_CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""RFC 8839 section 5.4."""


MAX_CREDENTIALS = 256
"""Of one recording: both sides have new ones with every ICE restart. None is forgotten, lest a
message that comes late be written with the password that it was signed with."""


class TooManyCredentials(Exception):
    """More than ``MAX_CREDENTIALS``."""


class Redaction:
    """Makes lines fit to be written. Remembers what it must know of those before."""

    def __init__(
        self, salt: bytes, *, addresses: bool = False, secrets: tuple[str, ...] = ()
    ) -> None:
        """``salt`` is random, used once and told nobody. ``addresses``: replace them too.
        ``secrets``: what must not be found in any prose, a user name of a server for example."""
        self._salt = salt
        self._pseudonyms = Pseudonyms() if addresses else None
        self._secrets = [
            re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)") for secret in secrets if secret
        ]
        self._known: set[Credentials] = set()
        self._keys: deque[Keys] = deque()
        """The latest first: they are those that most messages are signed with."""

    @property
    def replaces_addresses(self) -> bool:
        return self._pseudonyms is not None

    def line(self, line: lines.Line) -> lines.Line:
        """Raises TooManyPseudonyms and TooManyCredentials."""
        match line:
            case lines.Header():
                return self._header(line)
            case lines.SetRemoteParameters() | lines.Restart():
                self._learn(line.credentials)
                credentials = self._credentials(line.credentials)
                return msgspec.structs.replace(line, credentials=credentials)
            case lines.ReceiveDatagram():
                return msgspec.structs.replace(
                    line,
                    data=self._datagram(line.data),
                    source=self._address(line.source),
                    local=self._address(line.local),
                )
            case lines.Sent():
                return msgspec.structs.replace(
                    line,
                    data=self._datagram(line.data),
                    local=self._address(line.local),
                    destination=self._address(line.destination),
                )
            case lines.AddRelayedCandidate():
                return msgspec.structs.replace(
                    line,
                    address=self._address(line.address),
                    server=self._server(line.server),
                    mapped=None if line.mapped is None else self._address(line.mapped),
                )
            case lines.QueryServer():
                return msgspec.structs.replace(
                    line,
                    server=self._server(line.server),
                    address=self._address(line.address),
                    base=self._address(line.base),
                )
            case lines.AddServerReflexiveCandidate():
                return msgspec.structs.replace(
                    line,
                    mapped=self._address(line.mapped),
                    base=self._address(line.base),
                    server=self._server(line.server),
                    server_address=self._address(line.server_address),
                )
            case lines.FailureNote():
                return msgspec.structs.replace(line, message=self._prose(line.message))
            case lines.ServerNote():
                report = self._server_report(line.report)
                return lines.ServerNote(replace(report, detail=self._prose(line.report.detail)))
            case lines.QueryEnded():
                return lines.QueryEnded(self._address(line.base), self._server_report(line.report))
            case lines.End():
                return msgspec.structs.replace(line, report=self._report(line.report))
            case lines.LocalCandidate():
                return lines.LocalCandidate(self._local(line.candidate))
        return line if self._pseudonyms is None else self._without_addresses(line)

    def _without_addresses(self, line: lines.Line) -> lines.Line:
        """Of the lines that hold nothing worse."""
        pseudonyms = self._pseudonyms
        assert pseudonyms is not None
        address, text = pseudonyms.address, pseudonyms.text
        match line:
            case lines.AddHostCandidate() | lines.RemoveLocalCandidate():
                return msgspec.structs.replace(line, address=address(line.address))
            case lines.AddRemoteCandidate():
                return msgspec.structs.replace(line, candidate=self._remote(line.candidate))
            case (
                lines.ReceiveData() | lines.Data() | lines.DataReceived() | lines.DataFromStranger()
            ):
                return msgspec.structs.replace(
                    line, source=address(line.source), local=address(line.local)
                )
            case lines.ReceiveIcmpError():
                return msgspec.structs.replace(
                    line, local=address(line.local), destination=address(line.destination)
                )
            case lines.Raised():
                return lines.Raised(line.error, text(line.message))
            case lines.State():
                return lines.State(line.state, text(line.reason), line.cause)
            case lines.Selected():
                return msgspec.structs.replace(
                    line,
                    reason=text(line.reason),
                    base=address(line.base),
                    remote=self._remote(line.remote),
                    report=self._pair_report(line.report),
                )
            case lines.InterfaceNote():
                return lines.InterfaceNote(address(line.base), pseudonyms.interface(line.name))
        return line

    # -- secrets ------------------------------------------------------------------------------

    def _header(self, line: lines.Header) -> lines.Header:
        self._learn(line.credentials)
        config = line.config
        if self._pseudonyms is not None and config.software is not None:
            config = replace(config, software=masked(config.software, self._pseudonyms))
        return msgspec.structs.replace(
            line, credentials=self._credentials(line.credentials), config=config
        )

    def _learn(self, credentials: Credentials) -> None:
        """Messages of an ICE restart and of the generations before it cross."""
        if credentials in self._known:
            return
        if len(self._known) >= MAX_CREDENTIALS:
            raise TooManyCredentials
        self._known.add(credentials)
        self._keys.appendleft((credentials.key, self._credentials(credentials).key))

    def _credentials(self, credentials: Credentials) -> Credentials:
        return Credentials(credentials.ufrag, self._password(credentials.pwd))

    def _password(self, pwd: str) -> str:
        """As long as ``pwd``; the same for the same, and nothing else in common with it."""
        stream = b""
        while len(stream) < len(pwd):
            block = len(stream).to_bytes(4, "big") + pwd.encode("utf-8", "surrogatepass")
            stream += hmac.digest(self._salt, block, hashlib.sha256)
        return "".join(_ICE_CHARS[byte & 63] for byte in stream[: len(pwd)])

    def _datagram(self, data: str) -> str:
        return rewritten(bytes.fromhex(data), self._keys, self._pseudonyms).hex()

    def _prose(self, text: str) -> str:
        for secret in self._secrets:
            text = secret.sub("***", text)
        return text if self._pseudonyms is None else self._pseudonyms.prose(text)

    def _server(self, server: str) -> str:
        server = without_userinfo(server)
        return server if self._pseudonyms is None else self._pseudonyms.server(server)

    def _server_report(self, report: ServerReport) -> ServerReport:
        return replace(
            report,
            uri=self._server(report.uri),
            detail=self._text(report.detail),
            base=self._text(report.base),
            mapped=self._text(report.mapped),
        )

    # -- addresses ----------------------------------------------------------------------------

    def _address(self, address: Address) -> Address:
        return address if self._pseudonyms is None else self._pseudonyms.address(address)

    def _text(self, text: str) -> str:
        return text if self._pseudonyms is None else self._pseudonyms.text(text)

    def _local(self, candidate: Candidate) -> Candidate:
        server = None if candidate.server is None else self._server(candidate.server)
        candidate = replace(candidate, server=server)
        return candidate if self._pseudonyms is None else self._moved(candidate)

    def _remote(self, candidate: Candidate) -> Candidate:
        """The agent looks neither at extensions, which may say anything, nor at a server."""
        assert self._pseudonyms is not None
        return replace(
            self._moved(candidate),
            foundation=self._pseudonyms.foundation(candidate.foundation),
            extensions=(),
            server=None,
        )

    def _moved(self, candidate: Candidate) -> Candidate:
        related, base = candidate.related_address, candidate.base
        host, port = self._address(candidate.address)
        return replace(
            candidate,
            host=host,
            port=port,
            related_address=None if related is None else self._address(related),
            base=None if base is None else self._address(base),
        )

    def _pair_report(self, report: PairReport) -> PairReport:
        return replace(report, local=self._text(report.local), remote=self._text(report.remote))

    def _report(self, report: Report) -> Report:
        return replace(
            report,
            local_candidates=tuple(map(self._text, report.local_candidates)),
            remote_candidates=tuple(map(self._text, report.remote_candidates)),
            pairs=tuple(map(self._pair_report, report.pairs)),
            servers=tuple(map(self._server_report, report.servers)),
            notes=tuple(map(self._text, report.notes)),
            tcp_hosts=tuple(map(self._prose, report.tcp_hosts)),
            nothing_gathered=self._prose(report.nothing_gathered),
            told=None
            if report.told is None
            else replace(report.told, detail=self._prose(report.told.detail)),
        )
