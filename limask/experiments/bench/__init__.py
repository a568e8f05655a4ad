"""``limask bench``: limask timed against its host."""
