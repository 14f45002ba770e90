"""`corpusmith download`: the work of img2dataset under its flags, in its layout."""
