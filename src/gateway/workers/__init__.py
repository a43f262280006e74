"""
Several processes as one: a parent that starts workers, which share the clients' port, and speaks for them.

``parent`` is what ``twistd gateway`` becomes: it owns the admin and API ports and carries no client.
``supervised`` is one worker as its parent sees it, ``worker`` is that process itself, ``line`` is what runs between them.

Part of the composition root, on the top floor beside ``app``: it may know every room, and decides nothing about a request.
"""
