"""What is read and written: plain frozen values."""
