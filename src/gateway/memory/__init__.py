"""
The stores of a single instance: complete, in this process, lost with it.

This room must not know the network.
"""
