"""HTTP: the API of runners, and the document that describes it."""
