"""Trained networks: found in files and folders, evaluated, used to predict."""
