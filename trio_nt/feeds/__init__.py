"""Where market data comes from: recorded files, sockets, a user's own source."""
