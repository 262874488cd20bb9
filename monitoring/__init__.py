"""The fourth room: is it drifting, are the segments stable, do the predictions come true. It watches; it never writes
into the other rooms' state."""
