"""From files to values, as streams. PyArrow is imported only where a Parquet file is read."""
