"""Joining compute centres: the port (the contract), what kinds share, and one package per kind; never decides policy, never imports engine, store or api."""
