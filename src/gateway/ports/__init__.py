"""
The interfaces between rooms, with their promises, and nothing that keeps them.

This room must not know any library that could implement them.
"""
