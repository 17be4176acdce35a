"""An engine in a process of its own: a fault takes the engine, not who feeds it."""
