"""S3's clients before S3's servers, direct and through sigward: what every step comes to must be the same.

What lives here: the servers (MinIO, versitygw), the clients, and the matrix of both with sigward's fronts, ways and treatments of bodies.
`make s3-matrix` runs all of it; `tests/e2e/test_s3_matrix.py` a part. What never does: anything that looks at single requests.
"""
