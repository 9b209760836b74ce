"""The installed commands: their entry points, and the commands that join several rooms."""
