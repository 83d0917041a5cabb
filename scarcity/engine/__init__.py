"""Discovery from additive statistics: what is summed over parties is the statistic of the pooled data."""
