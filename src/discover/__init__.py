"""The explorer: a map of all segments, the windows that open from it, and their commands."""
