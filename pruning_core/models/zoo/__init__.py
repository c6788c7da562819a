"""The networks of the papers, one file a family; each file has a table ``MODELS`` of its variants."""
