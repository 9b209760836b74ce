"""π0.5's network and its sizes."""
