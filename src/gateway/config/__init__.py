"""
From a file and an environment to frozen sections, or to the list of everything wrong with them.

This room must not know what the sections are used for.
"""
