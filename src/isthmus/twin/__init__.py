"""The twin: sites under a virtual clock, fed by traces. Imports domain only; reads no clock, draws no random numbers.

`readers` is its edge: the only part that opens files. Needs the extra `twin` (numba, numpy).
"""
