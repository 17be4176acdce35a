"""Attention over the paged cache in Triton: decodes, prefills, and segments that sequences share.

Online softmax in base 2 (Milakov and Gimelshein 2018), tiles as in FlashAttention-2 (Dao 2023),
keys split among programs as in Flash-Decoding (Dao et al. 2023), shared segments as one product
merged by log-sum-exp as in Hydragen (Juravsky et al. 2024). The query heads of a KV head are rows
of one tile.
"""
