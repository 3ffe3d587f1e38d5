"""An emulated wide-area network on one machine: sites, routers and links as network namespaces of the kernel.

Owns the namespaces, the interfaces in them and the processes that it starts there, all recorded in the state file of
the lab before they are made. Like the whole lab it imports no room of isthmus but `domain`. Needs root.
"""
