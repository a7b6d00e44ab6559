"""Weights of our own: a network that has seen nothing but textures drawn by a program, and has learnt to notice what does not belong.

`textures` draws surfaces, `lessons` puts something into them that does not belong, `training` lets the backbone learn from it, and `rehearsal` says, without
any photograph, how good its features are. `python -m texad.pretrain` does all.
"""
