"""The exchange's own Python SDK cancels on the sandbox: `make sdk`.

What was written against the live exchange is to find the sandbox just like it.
"""
