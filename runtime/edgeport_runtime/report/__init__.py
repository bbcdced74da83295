"""What a person sees of a bundle: a document of figures, ``report.json``, and the page made of it, ``report.html``."""
