"""What an operator sees of a node: its status, its logs, and the list of what has left it."""
