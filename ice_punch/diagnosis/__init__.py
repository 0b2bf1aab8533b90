"""Why two peers do not meet, or meet at a relay only: from a report to what a person needs."""

from ice_punch.diagnosis.causes import Cause, Diagnosis, Side
from ice_punch.diagnosis.verdict import diagnose, why_relayed

__all__ = ["Cause", "Diagnosis", "Side", "diagnose", "why_relayed"]
