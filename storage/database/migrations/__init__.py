"""The schema's history, one revision a file; run by
`storage.database.connection.Database.migrate`."""
