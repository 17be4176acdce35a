"""The room for datasets: rows of an input file, requests made of them, results joined to them.

Each folder or file imports only those above it:

- ``values``: sources, rows, results and records;
- ``readers``: one file a kind of input, what tells the kinds apart, and a batch's result files;
- ``request_lines`` and ``joining``: from rows to requests, and from results back to rows;
- ``writers``: one file a format of output.
"""
