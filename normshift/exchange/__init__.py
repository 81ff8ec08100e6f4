"""How one norm layer takes the place of another, with all that hangs on it."""
