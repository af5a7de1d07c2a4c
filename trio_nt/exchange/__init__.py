"""A venue of our own: the matching core, its market, its server."""
