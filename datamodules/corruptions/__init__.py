"""ImageNet-C, ImageNet-P and shifts of appearance, computed for images of any size."""
