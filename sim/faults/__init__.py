"""What goes wrong, as data, and the one place that decides when and on whom."""
