"""The app: the engine that generates, the page, its figures and the routing view."""
