"""Gates while a network trains: how they are tracked, recorded and shown."""
