"""A training that is interrupted at any moment continues exactly: what is saved, when, where and how it is restored."""
