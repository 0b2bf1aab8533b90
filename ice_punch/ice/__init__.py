"""Interactive Connectivity Establishment, RFC 8445 and its companions, sans-IO."""

from ice_punch.ice.agent import Agent, resembles_stun
from ice_punch.ice.binding import Credentials
from ice_punch.ice.candidate import Candidate, CandidateType
from ice_punch.ice.events import (
    DataReceived,
    Event,
    FailureCause,
    IceState,
    LocalCandidateFound,
    RestartAdvised,
    SelectedPairChanged,
    ServerQueryEnded,
    StateChanged,
)
from ice_punch.ice.pacer import MINIMUM_TA, Pacer
from ice_punch.ice.pair import CandidatePair, PairState
from ice_punch.ice.policy import NominationPolicy, PatientPolicy
from ice_punch.ice.session import AgentConfig

__all__ = [
    "MINIMUM_TA",
    "Agent",
    "AgentConfig",
    "Candidate",
    "CandidatePair",
    "CandidateType",
    "Credentials",
    "DataReceived",
    "Event",
    "FailureCause",
    "IceState",
    "LocalCandidateFound",
    "NominationPolicy",
    "Pacer",
    "PairState",
    "PatientPolicy",
    "RestartAdvised",
    "SelectedPairChanged",
    "ServerQueryEnded",
    "StateChanged",
    "resembles_stun",
]
