"""What outlives a run: the order journal."""
