"""The end of a recipe: what a corpus looks like on disk."""
