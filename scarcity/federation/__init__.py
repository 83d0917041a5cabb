"""The protocol: pure cores of the three roles, and what drives them in one thread."""
