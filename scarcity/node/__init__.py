"""The roles as actors on one host: any core in a shell, its journal, its keys."""
