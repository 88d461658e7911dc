"""One folder per claim: the question, the exact command, the records and the table made from them."""
