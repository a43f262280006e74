"""
Backends that run as processes of their own. Standard library only; nothing of the gateway.
"""
