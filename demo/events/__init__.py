"""
An Event Service: is told when sessions begin and end, and shows what that says about the players.
"""
