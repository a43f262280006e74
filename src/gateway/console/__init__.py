"""
The support console: what people who look after a running gateway ask it and order, over ssh, telnet and the admin
port. It asks all instances as one; it knows no socket of a client, and nothing of how the answers come about.
"""
