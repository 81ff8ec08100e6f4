"""How a training runs and what it shows: layout, compilation, the bar, quiet libraries."""
