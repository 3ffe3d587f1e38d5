"""Measures paths as they are: delay, jitter and loss by STAMP (RFC 8762), with time stamps of the kernel.

Owns the sender, the reflector and their figures. Imports the domain; never the engine, a store, a site or the lab.
"""
