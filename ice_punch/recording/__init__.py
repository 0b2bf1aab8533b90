"""Record what an agent is told, draws and does; run it again, bit for bit.

Sans-IO: a ``Recorder`` hands lines of text to whatever writes them.
"""

from ice_punch.recording.agent import RecordedAgent
from ice_punch.recording.lines import FORMAT_VERSION, MAX_LINE
from ice_punch.recording.recorder import MAX_BYTES, MAX_LINES, Recorder
from ice_punch.recording.recording import Recording
from ice_punch.recording.replay import Replay, replay

__all__ = [
    "FORMAT_VERSION",
    "MAX_BYTES",
    "MAX_LINE",
    "MAX_LINES",
    "RecordedAgent",
    "Recorder",
    "Recording",
    "Replay",
    "replay",
]
