"""What a node goes by: keys, requests, the signed directory, config files, and all of it checked together."""
