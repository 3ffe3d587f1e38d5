"""Who calls, what they may do, and how secrets are kept; owns tokens, rules and the key file, never imports engine or api."""
