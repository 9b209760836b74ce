"""The installed commands: parse the flags, call the module that does the work, print the result."""
