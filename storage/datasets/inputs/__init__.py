"""Inputs where they lie: which URIs a tenant may name, the files that they stand for, their bytes.

``uris`` and ``allowed`` come first; ``listing`` finds files in the ``places`` that hold them,
``snapshots`` keeps what was found, and ``remote`` reads it.
"""
