"""Joint placement of many tasks at once: site, path, data and time under persistent prices of what is scarce.

Pure and numeric: arrays in, arrays out; imports numpy, numba and, for the audit and the hard cores only, highspy and
ortools; no domain types, no I/O. It is imported when a round needs it, never when the service starts.
"""
