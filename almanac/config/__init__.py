"""Settings, addresses and the ASGI application of the reference project."""
