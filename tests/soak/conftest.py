"""How long the soak tests run: ``ICE_PUNCH_SOAK=soak`` for 10,000 new examples, else 300 that are
always the same."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = {"ci": 300, "soak": 10_000}
WHICH = os.environ.get("ICE_PUNCH_SOAK", "ci")
if WHICH not in EXAMPLES:
    raise pytest.UsageError(f"ICE_PUNCH_SOAK is {' or '.join(EXAMPLES)}, not {WHICH}")

# Not loaded: the tests of other folders have settings of their own.
settings.register_profile(
    "sessions",
    max_examples=EXAMPLES[WHICH],
    stateful_step_count=40,
    derandomize=WHICH == "ci",
    print_blob=WHICH == "soak",
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
