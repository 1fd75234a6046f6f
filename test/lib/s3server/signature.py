"""AWS Signature Version 4, checked by botocore.

The canonical request, the string to sign and the signature are all botocore's,
so that nothing of the signer under test is judged by a second reading of ours.
What AWS does first is done here: the path and the query are decoded and encoded
again, so what counts is what was meant, not how it was written on the wire.
"""
import hmac
import re
import sys
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

try:
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
except ImportError as reason:
    sys.exit("s3_server: botocore is needed to verify signatures (Debian: apt-get install python3-botocore): %s" % reason)

ALGORITHM = "AWS4-HMAC-SHA256"


class Malformed(Exception):
    pass


@dataclass
class Signed:
    """What an Authorization header says."""
    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: list
    signature: str


def parse(authorization):
    if not authorization.startswith(ALGORITHM + " "):
        raise Malformed("mechanism")
    fields = {}
    for field in authorization[len(ALGORITHM):].split(","):
        name, equals, value = field.strip().partition("=")
        if not equals or name in fields:
            raise Malformed(name or "syntax")
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise Malformed(name)
    scope = fields["Credential"].rsplit("/", 4)
    if len(scope) != 5 or scope[4] != "aws4_request":
        raise Malformed("Credential")
    if not re.fullmatch("[0-9a-f]{64}", fields["Signature"]):
        raise Malformed("Signature")
    names = fields["SignedHeaders"].split(";")
    if names != sorted(set(names)) or [n.lower() for n in names] != names:
        raise Malformed("SignedHeaders")
    return Signed(*scope[:4], names, fields["Signature"])


def encode_path(raw):
    return quote(unquote_to_bytes(raw.encode("latin-1")), safe="/-_.~")


def encode_query(pairs):
    def encode(text):
        return quote(text, safe="-_.~", errors="surrogateescape")

    return "&".join("%s=%s" % (encode(name), encode(value)) for name, value in pairs)


class _Exactly:
    """Signs the headers that were said to be signed: no fewer, no more."""
    names = ()

    def headers_to_sign(self, request):
        return request.exact_headers


class _S3(_Exactly, S3SigV4Auth):
    pass


class _Other(_Exactly, SigV4Auth):
    pass


def verify(request, signed, secret):
    """(right, canonical request, string to sign)"""
    signer = (_S3 if signed.service == "s3" else _Other)(
        Credentials(signed.access_key_id, secret), signed.service, signed.region)
    url = "http://host" + encode_path(request.raw_path)
    if request.query:
        url += "?" + encode_query(request.query)
    probe = AWSRequest(method=request.method, url=url, data=bytes(request.body))
    probe.exact_headers = type(probe.headers)()
    for name, value in request.header_list:
        if name.lower() in signed.signed_headers:
            probe.exact_headers[name.lower()] = value
    payload = request.header("x-amz-content-sha256")
    if payload is not None:
        probe.headers["X-Amz-Content-SHA256"] = payload
    probe.context["timestamp"] = request.header("x-amz-date") or ""
    canonical = signer.canonical_request(probe)
    to_sign = signer.string_to_sign(probe, canonical)
    right = hmac.compare_digest(signer.signature(to_sign, probe), signed.signature)
    return right, canonical, to_sign
