"""The one suite that every kind of site passes against its real daemon; a third party subclasses SiteConformance."""

import pytest

pytest.register_assert_rewrite("tests.conformance.bench", "tests.conformance.suite")

from tests.conformance.bench import Centre  # noqa: E402
from tests.conformance.suite import SiteConformance  # noqa: E402

__all__ = ["Centre", "SiteConformance"]
