"""How long the soak tests run: ``ICE_PUNCH_SOAK=soak`` for 10,000 examples, else a few hundred."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = settings(
    deadline=None,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
# Names of their own, and none of them loaded: other tests have other settings.
settings.register_profile("sessions-ci", _COMMON, max_examples=300, derandomize=True)
settings.register_profile("sessions-soak", _COMMON, max_examples=10_000, print_blob=True)
PROFILE = f"sessions-{os.environ.get('ICE_PUNCH_SOAK', 'ci')}"
