"""From records to files. PyArrow is imported only where a Parquet file is written."""
