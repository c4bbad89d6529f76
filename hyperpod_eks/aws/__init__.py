"""Sessions, clients and calls to AWS, and the meaning of its answers and errors."""
