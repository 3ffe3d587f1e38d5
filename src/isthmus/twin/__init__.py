"""The twin: sites under a virtual clock, fed by traces. Imports domain and placement only; reads no clock, draws no random numbers.

`readers` and `writers` are its edges: the only parts that open files. Needs the extra `twin` (numba, numpy; pyarrow for
Parquet, matplotlib for pictures).
"""
