"""Readers of traces: the twin's edge, which opens files and names every line that it could not read."""

from isthmus.twin.readers.swf import BadLine, SwfLog, parse_swf, read_swf

__all__ = ["BadLine", "SwfLog", "parse_swf", "read_swf"]
