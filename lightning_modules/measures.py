"""The measures that networks are judged by: how they are logged, as DOMAIN/MEASURE, and how they are called."""

MEASURES = {"miou": "mIoU", "top1": "top-1"}
"""Each is a share, from 0 to 1; the larger the better."""
