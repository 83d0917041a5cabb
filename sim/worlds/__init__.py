"""Swarms in virtual time: a world, two executors of it, what is checked while they run, and what replays a failure."""
