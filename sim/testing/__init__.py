"""The simulator in tests of one's own: a pytest plugin, faults for carriers and links, an aggregator of one's own."""
