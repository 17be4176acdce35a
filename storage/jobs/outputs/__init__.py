"""Results in a caller's own place: the rows that say how far their shards are written."""
