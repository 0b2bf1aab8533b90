"""Peers with all kinds of habits. Those that are not our agent are written apart from it."""

from __future__ import annotations

from ice_punch.datagram import RandomSource
from ice_punch.ice import Agent, AgentConfig, Credentials
from ice_punch.lab.peers.classic import ClassicAgent
from ice_punch.lab.peers.lite import LiteAgent
from ice_punch.lab.peers.machine import IceMachine
from ice_punch.lab.peers.silent import SilentMachine
from ice_punch.lab.peers.slow import SlowMachine
from ice_punch.lab.scenario import Habit

__all__ = [
    "ClassicAgent",
    "IceMachine",
    "LiteAgent",
    "SilentMachine",
    "SlowMachine",
    "make_machine",
]


def make_machine(
    habit: Habit,
    *,
    controlling: bool,
    credentials: Credentials,
    random: RandomSource,
    config: AgentConfig | None = None,
) -> IceMachine:
    """A peer of this habit. Of ``config`` those that are not our agent take Ta only."""
    config = config or AgentConfig()

    def agent() -> Agent:
        return Agent(controlling=controlling, credentials=credentials, random=random, config=config)

    def classic(*, triggered_checks: bool, aggressive: bool) -> ClassicAgent:
        return ClassicAgent(
            controlling=controlling,
            credentials=credentials,
            random=random,
            triggered_checks=triggered_checks,
            aggressive=aggressive,
            ta=config.ta,
        )

    match habit:
        case Habit.FULL:
            return agent()
        case Habit.NO_TRIGGERED_CHECKS:
            return classic(triggered_checks=False, aggressive=False)
        case Habit.AGGRESSIVE:
            return classic(triggered_checks=True, aggressive=True)
        case Habit.LITE:
            return LiteAgent(controlling=controlling, credentials=credentials, random=random)
        case Habit.SILENT:
            return SilentMachine(controlling=controlling, credentials=credentials, random=random)
        case Habit.SLOW:
            return SlowMachine(agent())
