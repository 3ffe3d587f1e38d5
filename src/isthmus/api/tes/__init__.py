"""The GA4GH TES 1.1 face: its documents, what they mean in Isthmus's words, and its five operations; owns no state of
its own beyond the document as it was sent, and never imports an adapter of a site."""
