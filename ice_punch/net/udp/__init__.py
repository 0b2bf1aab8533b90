"""UDP sockets on an event loop, with the kernel's segmentation and receive offload."""

from ice_punch.net.udp.binding import BUFFER_SIZE, bind, check_port_range
from ice_punch.net.udp.offload import split
from ice_punch.net.udp.receiving import MANY, MAX_DATAGRAM, AloneHandler
from ice_punch.net.udp.socket import (
    DRAIN_LIMIT,
    SEND_QUEUE,
    DatagramHandler,
    ErrorHandler,
    SegmentsHandler,
    UdpSocket,
)
from ice_punch.net.udp.stats import UdpStats

__all__ = [
    "BUFFER_SIZE",
    "DRAIN_LIMIT",
    "MANY",
    "MAX_DATAGRAM",
    "SEND_QUEUE",
    "AloneHandler",
    "DatagramHandler",
    "ErrorHandler",
    "SegmentsHandler",
    "UdpSocket",
    "UdpStats",
    "bind",
    "check_port_range",
    "split",
]
