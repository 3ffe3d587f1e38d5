"""Programs real data planes: which paths packets take by policy, and which share of an interface a slice has.

Owns the desired state of each router, the port that a kind of data plane implements, the privileged daemon that does the
kernel's part, and what follows a failure. Imports the domain and the pure part of `network`; never the engine, a store or a site.
"""
