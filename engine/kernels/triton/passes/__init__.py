"""The passes between the products: embedding, norms, rotary embedding, cache writes, gates."""
