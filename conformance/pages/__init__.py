"""Pages of docs/ that the code writes."""
