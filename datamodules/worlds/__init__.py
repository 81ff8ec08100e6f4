"""The embedded worlds: data sets that are drawn on the fly."""
