"""The one suite that every kind of site passes against its real daemon; a third party subclasses SiteConformance."""

from tests.conformance.bench import Centre
from tests.conformance.suite import SiteConformance

__all__ = ["Centre", "SiteConformance"]
