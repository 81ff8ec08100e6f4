"""One file for each norm, named after it, with its `NormSpec`: layer, gates, and the style of its line in figures.

A file is imported when its norm is first used. The files here do not import torch, so that figures get their styles
quickly; a file that also defines a layer may import it.
"""
