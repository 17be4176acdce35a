"""The service's whole topology as plain processes on one machine: servers, API, workers.

The servers are real ones, from Python packages: PostgreSQL, Valkey and SeaweedFS. Developers use it
through ``make stack``, the tests through `stack.topology.Stack` and `stack.servers`.
"""
