"""Slurm clusters through slurmrestd; files still go over a transport. Owns the REST face only, Slurm's meaning is in `slurm`."""

from isthmus.sites.slurmrestd.site import SlurmRestSite

__all__ = ["SlurmRestSite"]
