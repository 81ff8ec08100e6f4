"""Objects in four styles."""
