"""
The stores of many instances: the ports in Redis 7, and the links to its servers.

The only room that knows txredisapi, which takes the global reactor when it is imported: this room
is imported late. It must not know the node, nor who asks.
"""
