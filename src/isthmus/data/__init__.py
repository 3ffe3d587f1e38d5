"""Content by hash: the port every mover and store of files stands behind; owns no task state and never imports engine or store."""
