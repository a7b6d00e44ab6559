"""How fast texad is, in ratios: against plain torch, against a literal loop, against anomalib,
against the machine itself.

Run it with `python -m benchmarks`; see `benchmarks.__main__`. A module is one benchmark. It has one
function `run`, which takes the `Options` of `material` and gives the `Row`s of `measure`. Nothing
here is needed to use texad.
"""
