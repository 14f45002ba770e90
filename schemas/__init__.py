"""What flows through corpusmith: columns, fates, recipes, manifests, ledgers. Imports nothing of ours."""
