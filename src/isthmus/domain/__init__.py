"""The field's words as frozen types with their invariants; owns meaning, does no I/O, imports the standard library only."""
