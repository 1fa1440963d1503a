"""HTTP requests that happen once: the middleware, and the pure parts that it is made of."""
