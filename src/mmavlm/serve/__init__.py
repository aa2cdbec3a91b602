"""A model in the browser, and for OpenAI's clients: on this machine alone."""
