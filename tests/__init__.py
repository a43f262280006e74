"""
The tests; a package, so that a folder in here never stands for a package of the same name.
"""
