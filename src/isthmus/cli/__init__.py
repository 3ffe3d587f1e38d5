"""The command `isthmus`; owns words, tables and exit codes, speaks to the service through `client` alone and imports no
room of the server."""
