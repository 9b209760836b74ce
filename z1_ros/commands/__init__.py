"""The installed commands: parse the flags, call the module that owns the job, print."""
