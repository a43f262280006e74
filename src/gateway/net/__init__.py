"""
Sockets on Twisted, with fewer steps between the kernel and a protocol.

Transports that send at once when nothing is queued, a reactor whose clock no clock step can
move, and the questions that only a transport's insides can answer. Everything stays behind
Twisted's own interfaces: an endpoint string works with these as with the stock reactor.

This room knows ``twisted.internet`` and nothing of the gateway; ``web`` and ``upstream`` both
stand on it (floor 1). Every private name of Twisted that is relied on is used here, and checked
before it is used (``transports.unsupported``).
"""
