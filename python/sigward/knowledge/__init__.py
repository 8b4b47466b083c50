"""What sigward knows of AWS's calls: a table made from botocore's service models, which the Rust engine reads.

`build` writes it, `models` reads botocore's data, `report` measures the table against botocore. Nothing here is on a request's path.
"""
