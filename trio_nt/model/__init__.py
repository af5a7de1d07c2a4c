"""The trading model: what things are. No Trio, no clock, no network."""
