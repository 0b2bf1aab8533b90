"""Session descriptions and candidate lines: RFC 8839, 8840, 8842 (the SDP side) and 8122."""

from ice_punch.sdp.attributes import Setup
from ice_punch.sdp.candidate_line import format_candidate, parse_candidate
from ice_punch.sdp.credentials import make_pwd, make_tls_id, make_ufrag
from ice_punch.sdp.description import RENOMINATION, Description
from ice_punch.sdp.fingerprint import Fingerprint
from ice_punch.sdp.fragment import Fragment

__all__ = [
    "RENOMINATION",
    "Description",
    "Fingerprint",
    "Fragment",
    "Setup",
    "format_candidate",
    "make_pwd",
    "make_tls_id",
    "make_ufrag",
    "parse_candidate",
]
