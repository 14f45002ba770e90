"""Where samples come from: readers of tables of URLs and texts."""
