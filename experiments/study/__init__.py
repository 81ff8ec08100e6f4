"""What all studies share: their flags, the contract of a task, the one loop over arms and seeds, and what a run leaves."""
