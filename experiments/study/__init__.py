"""What all studies share: flags, the contract of a task, the one loop over arms and seeds, what a run leaves."""
