"""The benchmark that runs on a node, also inside a batch job, in at most two minutes.

It owns the measuring and nothing else. It needs Python 3.8 and its standard library; NumPy, PyTorch and CuPy do the
arithmetic where they are present, and what had to be left out is named with its reason. It must never import another
part of Isthmus: it is sent to sites as one file (see `isthmus.metering.packing`).
"""

FORMAT = "isthmus-bench/1"
