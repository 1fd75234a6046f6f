"""Requests as the services see them, and their answers."""
import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

LOGGED = ("host", "content-type", "content-length", "content-md5", "content-encoding", "expect", "user-agent",
          "accept", "accept-encoding", "connection", "transfer-encoding", "range", "proxy-authorization")
SECRET = ("x-amz-security-token", "x-aws-ec2-metadata-token", "proxy-authorization")

_AWS_S3 = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:\.dualstack)?(?:[.-](?P<region>[a-z]{2}(?:-[a-z]+)+-\d))?\.amazonaws\.com(?:\.cn)?")
_AWS_STS = re.compile(r"sts(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?")


def _text(raw):
    """Header bytes, which http.server takes for Latin-1, as the UTF-8 that S3 reads."""
    return raw.encode("latin-1").decode("utf-8", "replace")


def _unquote(raw, plus=False):
    raw = raw.replace("+", " ") if plus else raw
    return unquote_to_bytes(raw.encode("latin-1")).decode("utf-8", "surrogateescape")


def parse_query(raw):
    pairs = []
    for item in raw.split("&") if raw else []:
        name, _, value = item.partition("=")
        pairs.append((_unquote(name, True), _unquote(value, True)))
    return pairs


class Request:
    def __init__(self, method, target, headers, virtual_suffixes=()):
        self.method = method
        self.header_list = [(name, _text(value)) for name, value in headers.items()]
        self.id = secrets.token_hex(8).upper()
        if re.match("https?://", target):       # a proxy is asked for a whole URL
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        self.raw_path, _, self.raw_query = target.partition("?")
        self.path = _unquote(self.raw_path)
        self.query = parse_query(self.raw_query)
        self.params = dict(self.query)
        self.host = self.header("host") or ""
        self.body = b""
        self.content_length = None
        self.identity = None
        self.signature = "missing"
        self.payload = None
        self._split_host(virtual_suffixes)

    def _split_host(self, virtual_suffixes):
        name = re.sub(r":\d+$", "", self.host).lower()
        self.endpoint_region = None             # that of an AWS host; None elsewhere
        self.sts_host = _AWS_STS.fullmatch(name)
        self.bucket, self.addressing = None, "path"
        aws = _AWS_S3.fullmatch(name)
        if aws:
            self.endpoint_region = aws["region"] or "us-east-1"
            self.bucket = aws["bucket"]
        elif self.sts_host:
            self.endpoint_region = self.sts_host["region"] or "us-east-1"
        else:
            for suffix in virtual_suffixes:
                if name.endswith("." + suffix):
                    self.bucket = name[:-len(suffix) - 1]
        if self.bucket:
            self.addressing, self.key = "virtual", self.path[1:]
        else:
            self.bucket, _, self.key = self.path[1:].partition("/")

    def header(self, name):
        values = [v for n, v in self.header_list if n.lower() == name]
        return ",".join(values) if values else None

    def headers_like(self, prefix):
        return {n.lower(): v for n, v in self.header_list if n.lower().startswith(prefix)}

    def logged_headers(self):
        kept = {}
        for name in dict.fromkeys(n.lower() for n, _ in self.header_list):
            if name in LOGGED or name.startswith(("x-amz", "x-aws", "if-", "x-forwarded")):
                kept[name] = "(present)" if name in SECRET else self.header(name)
        return kept


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    code: str = None                            # the service's error code, for the log

    def __post_init__(self):
        if isinstance(self.body, str):
            self.body = self.body.encode()

    def header(self, name):
        for known, value in self.headers.items():
            if known.lower() == name.lower():
                return value
        return None

    def set(self, name, value):
        for known in [k for k in self.headers if k.lower() == name.lower()]:
            del self.headers[known]
        if value is not None:
            self.headers[name] = str(value)
