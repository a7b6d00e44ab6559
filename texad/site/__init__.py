"""The book: pages made of the runs, what Sphinx is taught to show them, and the PDF."""
