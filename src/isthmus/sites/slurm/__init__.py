"""Slurm clusters through their commands, here or over ssh; owns how Slurm is asked and understood."""

from isthmus.sites.slurm.site import SlurmSite

__all__ = ["SlurmSite"]
