"""The runtime of devices that work while the host goes on: a step in flight, graphs, slots.

`runner` drives it. A step's arrays are packed into one copy (`packed`), its passes are those of
`decoder` over memory that is taken once (`buffers`), and what is launched again and again is
recorded (`recorded`).
"""
