"""What is exported: the module, its weights, and the options that describe them. No graph is made here."""
