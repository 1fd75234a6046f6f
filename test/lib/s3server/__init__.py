"""A scripted S3 and STS server for tests; see ../s3_server.py."""
