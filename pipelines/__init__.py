"""From a recipe to a finished corpus: plan, run, resume, report, command line."""
