"""
Makes ``twistd gateway`` known to twistd.
"""

from twisted.application.service import ServiceMaker

gateway = ServiceMaker(
    "gateway",
    "gateway.tap",
    "An authenticated, event-driven entry point for HTTP and WebSocket clients.",
    "gateway",
)
