"""The demonstration: Isthmus doing its main job on real centres of this machine, with every result checked.

This room owns the story that `isthmus demo` tells. It works like a person: it starts centres of `isthmus.lab`, types commands
of the CLI and calls `isthmus.client`. It must never import a room of the server.
"""
