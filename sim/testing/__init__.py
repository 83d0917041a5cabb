"""The simulator in tests of one's own: a pytest plugin, a carrier with faults, an aggregator of one's own."""
