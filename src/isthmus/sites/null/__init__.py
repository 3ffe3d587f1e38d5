"""A site that runs nothing: every job ends well after a set time. It measures the control plane, and only that."""

from isthmus.sites.null.site import NullSite

__all__ = ["NullSite"]
