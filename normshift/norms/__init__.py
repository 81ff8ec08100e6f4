"""One file for each norm, named as the norm is: what it is called, made of, drawn with, and which gates it has.

A file is read when its norm is first asked for. These need no torch, so that figures have their colours without it; a
file that holds its layer as well may import torch.
"""
