"""Results where the caller wants them: which places a tenant may name, columns passed through,
shards."""
