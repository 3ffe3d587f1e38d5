"""The process at a site that dials out to the control plane and runs the site's adapter there; no port is opened.

Imports domain, sites and data only; never store, engine or api.
"""
