"""Known divergences: the list is read, matched against cases, and edited."""
