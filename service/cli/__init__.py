"""The command line `locore`, one module a command."""
