"""
What one instance does: carries requests through the filters and owns what runs beside them.

This room must not know sockets, stores or libraries; it is handed ports and a clock.
"""
