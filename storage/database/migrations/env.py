"""Alembic's entry: runs the revisions on the connection, and in the transaction, of its caller.

There is no offline mode and no URL here: `storage.database.connection.Database.migrate` opens the
transaction and holds the lock, so that processes which start together migrate one after the other.
"""

from alembic import context

from storage.database.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
context.run_migrations()
