"""The commands of the command line, one a file; `corpusmith.pipelines.cli` registers them."""
