"""Checks between a wish and an order, and the exposure that they reserve."""
