#!/usr/bin/env python3
"""Random requests, signed by src/sigv4.c and by botocore: both must agree.

usage: botocore_check.py PROGRAM [COUNT [SEED]]

PROGRAM is bin/sign. Prints TAP; skips when botocore is not installed.
"""
import hashlib
import random
import subprocess
import sys

try:
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.compat import quote
    from botocore.config import Config
    from botocore.credentials import Credentials
except ImportError:
    print("1..0 # SKIP python3-botocore is not installed")
    sys.exit(0)

# what keys, values and folders are made of: each class of bytes, and UTF-8 of each length
PIECES = ["a", "Z", "09", "/", "//", "./", "../", "/.", "%2F", "\t", "\x01", "\x7f", "ü", "ሴ", "𝄞",
          "😀", "e\u0301", *"-_.~ +%=&?#'\"*()!@:;,$[]\\^`{}|<>"]


def text(rng, pieces, longest):
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, longest)))


def header_value(rng):
    return text(rng, ["a", "B", "1", ",", ";", "=", '"', " ", "  ", "   "], 20)


def random_request(rng):
    """A request as its parts, none of them encoded yet."""
    service = rng.choice(["s3", "s3", "s3", "sts"])
    path = "/" + text(rng, PIECES, rng.choice([5, 40]))
    if rng.random() < 0.02:
        path = "/" + "ü" * 512
    pairs = [(text(rng, PIECES, 5) or "q", rng.choice([text(rng, PIECES, 8), ""]))
             for _ in range(rng.choice([0, 0, 1, 2, 6]))]
    if pairs and rng.random() < 0.3:
        pairs.append((pairs[0][0], text(rng, PIECES, 4)))
    names = ["x-amz-" + text(rng, ["a", "b", "-", "_", "A", "1"], 6) + "x"
             for _ in range(rng.randint(0, 6))]
    headers = [(name, header_value(rng)) for name in names + rng.sample(names, len(names) // 2)]
    return {
        "service": service, "path": path, "query": pairs, "headers": headers,
        "host": rng.choice(["bucket.s3.us-west-2.amazonaws.com", "localhost:7480", "[::1]:9000",
                            "10.1.2.3"]),
        "body": text(rng, PIECES, 30).encode(),
        "method": rng.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]),
        "scheme": rng.choice(["http", "https"]),
        "region": rng.choice(["us-east-1", "cn-north-1", "default"]),
        "date": "20%02d%02d%02dT%02d%02d%02dZ" % (rng.randint(10, 99), rng.randint(1, 12),
                                                   rng.randint(1, 28), rng.randint(0, 23),
                                                   rng.randint(0, 59), rng.randint(0, 59)),
        "access_key_id": text(rng, ["A", "K", "9"], 20) + "I",
        "secret": text(rng, ["a", "/", "+", "Z", "7"], 200) + "s",
        "token": rng.choice([None, text(rng, ["t", "/", "+", "="], 900) + "k"]),
        "signed_payload": rng.random() < 0.5,
    }


def sign_with_botocore(request):
    """Path and query on the wire, and the Authorization header."""
    target = quote(request["path"], safe="/~") + "?" + "&".join(
        quote(name, safe="~") + "=" + quote(value, safe="~") for name, value in request["query"])
    aws = AWSRequest(request["method"], f"{request['scheme']}://{request['host']}{target}",
                     data=request["body"])
    for name, value in request["headers"]:
        aws.headers[name] = value
    aws.context["timestamp"] = request["date"]
    aws.context["client_config"] = Config(s3={"payload_signing_enabled": request["signed_payload"]})
    credentials = Credentials(request["access_key_id"], request["secret"], request["token"])
    signer = S3SigV4Auth if request["service"] == "s3" else SigV4Auth
    auth = signer(credentials, request["service"], request["region"])
    # add_auth() without its clock
    auth._modify_request_before_signing(aws)
    string = auth.string_to_sign(aws, auth.canonical_request(aws))
    auth._inject_signature_to_request(aws, auth.signature(string, aws))
    return f"{target}\t{aws.headers['Authorization']}"


def lines_for_program(request):
    """The request as bin/sign reads it."""
    if request["service"] == "s3" and not request["signed_payload"]:
        payload_hash = "UNSIGNED-PAYLOAD"
    else:
        payload_hash = hashlib.sha256(request["body"]).hexdigest()
    headers = [("Host", request["host"]), *request["headers"], ("X-Amz-Date", request["date"])]
    if request["service"] == "s3":
        headers.append(("X-Amz-Content-SHA256", payload_hash))
    if request["token"]:
        headers.append(("x-amz-security-token", request["token"]))

    fields = [("payload_hash", payload_hash), ("secret_access_key", request["secret"])]
    fields += [(name, request[name])
               for name in ("method", "path", "region", "service", "date", "access_key_id")]
    for name, value in request["query"]:
        fields += [("query_name", name), ("query_value", value)]
    for name, value in headers:
        fields += [("header_name", name), ("header_value", value)]
    return "".join(f"{name} {value.encode().hex()}\n" for name, value in fields) + "sign\n"


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    rng = random.Random(seed)
    requests = [random_request(rng) for _ in range(count)]
    answer = subprocess.run([program], input="".join(map(lines_for_program, requests)).encode(),
                            stdout=subprocess.PIPE, check=True).stdout.decode()
    got = answer.splitlines()
    expected = [sign_with_botocore(request) for request in requests]
    wrong = [i for i in range(count) if i >= len(got) or got[i] != expected[i]]
    for i in wrong[:5]:
        print(f"# {requests[i]!r}\n# expected: {expected[i]}")
        print(f"# got: {got[i] if i < len(got) else None}")
    print(f"{'not ok' if wrong else 'ok'} 1 - {count} random requests (seed {seed}) are signed "
          f"as botocore signs them, {len(wrong)} are not\n1..1")
    sys.exit(1 if wrong else 0)


main()
