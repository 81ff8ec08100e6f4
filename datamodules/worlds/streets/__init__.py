"""Driving scenes with Cityscapes' 19 classes, in four appearances."""
