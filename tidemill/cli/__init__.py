"""The commands, one module a group. They parse and print; the work is done elsewhere."""
