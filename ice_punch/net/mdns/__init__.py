"""Names ending in ``.local`` in place of addresses: draft-ietf-mmusic-mdns-ice-candidates over
Multicast DNS, RFC 6762."""

from ice_punch.net.mdns.resolver import resolve_mdns
from ice_punch.net.mdns.responder import MdnsResponder, make_name

__all__ = ["MdnsResponder", "make_name", "resolve_mdns"]
