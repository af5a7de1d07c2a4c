"""Orders on their way: the state table, the journal's order, the brokers."""
