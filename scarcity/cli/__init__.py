"""The command `scarcity`. Its subcommands are entry points of group `scarcity.commands`."""
