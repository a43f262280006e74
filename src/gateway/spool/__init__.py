"""
What outlives a process that has no shared store: its sessions and the events nobody was told yet, in a file.

This room must not know the stores in memory, nor what an event says.
"""
