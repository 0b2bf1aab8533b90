"""NAT behaviour, RFC 4787 and RFC 5780, without I/O."""

from ice_punch.nat.behaviour import (
    FilteringBehaviour,
    MappingBehaviour,
    MappingVerdict,
    Observation,
    mapping_verdict,
)
from ice_punch.nat.discovery import BehaviourDetermined, BehaviourDiscovery

__all__ = [
    "BehaviourDetermined",
    "BehaviourDiscovery",
    "FilteringBehaviour",
    "MappingBehaviour",
    "MappingVerdict",
    "Observation",
    "mapping_verdict",
]
