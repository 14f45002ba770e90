"""What can be done to a batch: one operator a file, a folder a kind. Imports `corpusmith.schemas` alone."""
