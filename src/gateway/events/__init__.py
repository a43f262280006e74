"""
Telling somebody what happened to sessions: from the outbox of the stores to a backend or a stream.

Knows ports, and neither stores nor upstreams nor clients: what an event says is made from a session's
record, and where it goes is handed in.
"""
