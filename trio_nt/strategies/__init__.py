"""The strategy contract, what a strategy sees, and the actor that drives one."""
