"""Sites without a batch system: jobs are started as processes at once, on this host or on one host over ssh."""

from isthmus.sites.plain.site import LocalSite, SshSite

__all__ = ["LocalSite", "SshSite"]
