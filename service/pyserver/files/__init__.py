"""The disk: names below a root, opened and described."""
