"""Grid Engine cells through their commands, here or over ssh; owns how Grid Engine is asked and understood."""

from isthmus.sites.gridengine.site import GridEngineSite

__all__ = ["GridEngineSite"]
