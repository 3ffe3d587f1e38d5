"""Moves contents from site to site: a data server at each site and a puller, as an ordinary user, over TLS 1.3.

Owns bytes on their way and the directory of contents at a site (`keep`); imports `domain` and nothing else of Isthmus. Who may read
what is said by tickets that the control plane signs, and by the limits that lie beside each content, which no ticket overrules.
"""
