"""
The WebSocket edge: handshakes, frames and closing, with Autobahn as the authority on all three.
"""
