"""Tests of the room agent, and of the mailbox between it and the engine."""
