"""How one norm layer replaces another: data flow, references to the old layer, and what the new one inherits."""
