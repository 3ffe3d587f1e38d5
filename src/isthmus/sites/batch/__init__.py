"""What all batch systems share: the rows they answer with, and how queue, accounting and the job's own marks are merged.

Imports no kind of site; the kinds import it.
"""
