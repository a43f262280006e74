"""
The gateway: one authenticated door for every client of a multi-user platform.

Rooms stand on floors and an import may only point down:
``tap app cli`` > ``ws web console api`` > ``memory redis upstream auth events dialects``
> ``node`` > ``ports config telemetry`` > ``core``. A test walks the imports.
"""
