"""NAT behaviour, RFC 4787 and RFC 5780, without I/O."""

from ice_punch.nat.allocation import (
    AllocationBehaviour,
    AllocationDetermined,
    AllocationDiscovery,
    AllocationVerdict,
    PoolingBehaviour,
    PoolingVerdict,
    SocketMapping,
    allocation_verdict,
    pooling_verdict,
    port_order,
)
from ice_punch.nat.behaviour import (
    FilteringBehaviour,
    MappingBehaviour,
    MappingVerdict,
    Observation,
    mapping_verdict,
)
from ice_punch.nat.discovery import BehaviourDetermined, BehaviourDiscovery
from ice_punch.nat.hairpinning import (
    HairpinDiscovery,
    HairpinningBehaviour,
    HairpinningVerdict,
    HairpinResult,
    HairpinTested,
    hairpinning_verdict,
)
from ice_punch.nat.lifetime import LifetimeDetermined, LifetimeDiscovery, RefreshBehaviour

__all__ = [
    "AllocationBehaviour",
    "AllocationDetermined",
    "AllocationDiscovery",
    "AllocationVerdict",
    "BehaviourDetermined",
    "BehaviourDiscovery",
    "FilteringBehaviour",
    "HairpinDiscovery",
    "HairpinResult",
    "HairpinTested",
    "HairpinningBehaviour",
    "HairpinningVerdict",
    "LifetimeDetermined",
    "LifetimeDiscovery",
    "MappingBehaviour",
    "MappingVerdict",
    "Observation",
    "PoolingBehaviour",
    "PoolingVerdict",
    "RefreshBehaviour",
    "SocketMapping",
    "allocation_verdict",
    "hairpinning_verdict",
    "mapping_verdict",
    "pooling_verdict",
    "port_order",
]
