#!/usr/bin/env python3
"""Tests of s3_server.py itself, printing TAP: is the judge right?

Requests are signed by botocore and sent by http.client, byte for byte as given.
"""
import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlencode

try:
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
except ImportError:
    sys.exit("Bail out!  botocore is needed (Debian: apt-get install python3-botocore)")

from s3server.crc32c import crc32c

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1024 * 1024
ACCOUNT = "111122223333"
USER_ARN = "arn:aws:iam::%s:user/exporter" % ACCOUNT
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


# --- TAP ------------------------------------------------------------------------

class Tap:
    count = failed = 0

    @classmethod
    def ok(cls, passed, name, *more):
        cls.count += 1
        cls.failed += not passed
        print("%sok %d - %s" % ("" if passed else "not ", cls.count, name), flush=True)
        if not passed:
            for item in more:
                print("# " + repr(item)[:2000])

    @classmethod
    def equal(cls, got, wanted, name):
        cls.ok(got == wanted, name, got, wanted)


ok, equal = Tap.ok, Tap.equal


# --- the server under test --------------------------------------------------------

class ServerProcess:
    def __init__(self, directory, *arguments):
        ready = os.path.join(directory, "ready")
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "s3_server.py"), "--ready", ready,
                                         "--parent", str(os.getpid()), *arguments])
        for _ in range(200):
            if os.path.exists(ready):
                break
            if self.process.poll() is not None:
                sys.exit("Bail out!  s3_server.py did not start")
            time.sleep(0.05)
        with open(ready) as file:
            self.ports = json.load(file)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def control(self, call, **arguments):
        request = urllib.request.Request("http://127.0.0.1:%d/%s" % (self.ports["control"], call),
                                         json.dumps(arguments).encode(), method="POST")
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)


class Answer:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    def tag(self, name):
        match = re.search(r"<%s>(.*?)</%s>" % (name, name), self.body.decode("utf-8", "replace"), re.DOTALL)
        return match and match[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")

    @property
    def code(self):
        return self.tag("Code")

    @property
    def summary(self):
        return self.status, self.code


class Client:
    """Signs with botocore; whatever can be wrong in a request can be made wrong."""

    def __init__(self, server, key="AKIAEXPORTER00000000", secret="secret/of+exporter", token=None):
        self.server, self.key, self.secret, self.token = server, key, secret, token

    def sign(self, method, path, query, headers, body, service="s3", region="us-east-1", when=0, payload=None, host=None):
        host = host or "127.0.0.1:%d" % self.server.ports["s3"]
        url = "http://%s%s" % (host, path) + ("?" + query if query else "")
        request = AWSRequest(method, url, headers={"Host": host, **(headers or {})}, data=body)
        signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(self.key, self.secret, self.token), service, region)
        moment = datetime.now(timezone.utc) + timedelta(seconds=when)
        request.context["timestamp"] = moment.strftime("%Y%m%dT%H%M%SZ")
        # add_auth() without its clock
        signer._modify_request_before_signing(request)
        if payload is not None:
            del request.headers["X-Amz-Content-SHA256"]
            request.headers["X-Amz-Content-SHA256"] = payload
        to_sign = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(to_sign, request))
        return request.headers

    def connect(self, tls=None, timeout=20):
        if tls is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.server.ports["s3"], context=tls, timeout=timeout)
        return http.client.HTTPConnection("127.0.0.1", self.server.ports["s3"], timeout=timeout)

    def send(self, method, path, query="", headers=None, body=b"", add=None, drop=(), connection=None, tls=None,
             content_length=True, **signing):
        """One request; add and drop change its headers after it was signed."""
        signed = self.sign(method, path, query, headers, body, **signing)
        final = [(n, v) for n, v in signed.items() if n.lower() not in drop] + list((add or {}).items())
        own = connection or self.connect(tls)
        try:
            own.putrequest(method, path + ("?" + query if query else ""), skip_host=True, skip_accept_encoding=True)
            for name, value in final:
                own.putheader(name, value.encode() if isinstance(value, str) else value)
            if content_length and (body or method in ("PUT", "POST")):
                own.putheader("Content-Length", str(len(body)))
            own.endheaders()
            if body:
                try:
                    own.send(body)
                except (BrokenPipeError, ConnectionResetError):
                    pass                            # an early answer may be there
            response = own.getresponse()
            return Answer(response, response.read())
        finally:
            if connection is None:
                own.close()

    def fails(self, *arguments, **more):
        """The name of the exception that the request ends with; None: it has an answer."""
        try:
            self.send(*arguments, **more)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return None

    def sts(self, drop=(), method="POST", **form):
        signing = {k: form.pop(k) for k in ("when", "region", "service", "add", "host") if k in form}
        body = urlencode({"Version": "2011-06-15", **form}, quote_via=quote).encode()
        return self.send(method, "/", headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, body=body,
                         drop=drop, **{"service": "sts", **signing})

    # multipart uploads

    def create(self, key="big", headers=None, **more):
        answer = self.send("POST", "/bucket/" + key, "uploads=", headers, **more)
        return answer.tag("UploadId")

    def part(self, upload, number, data, key="big", headers=None, **more):
        return self.send("PUT", "/bucket/" + key, "partNumber=%d&uploadId=%s" % (number, quote(upload, safe="")), headers, data, **more)

    def complete(self, upload, parts, key="big", headers=None, **more):
        """parts: (number, ETag[, CRC32C])"""
        xml = "<CompleteMultipartUpload>%s</CompleteMultipartUpload>" % "".join(
            "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag>%s</Part>" % (
                p[0], p[1].replace("&", "&amp;").replace("<", "&lt;"),
                "<ChecksumCRC32C>%s</ChecksumCRC32C>" % p[2] if len(p) > 2 else "") for p in parts)
        headers = {"Content-Type": "application/xml", **(headers or {})}
        return self.send("POST", "/bucket/" + key, "uploadId=" + quote(upload, safe=""), headers, xml.encode(), **more)

    def abort(self, upload, key="big"):
        return self.send("DELETE", "/bucket/" + key, "uploadId=" + quote(upload, safe=""))


def crc(data):
    return base64.b64encode(crc32c(data).to_bytes(4, "big")).decode()


def statement(actions, resources, effect="Allow", **more):
    return {"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": actions, "Resource": resources, **more}]}


def trust(principal, condition=None, action="sts:AssumeRole"):
    inner = {"Effect": "Allow", "Principal": principal, "Action": action}
    if condition:
        inner["Condition"] = condition
    return {"Version": "2012-10-17", "Statement": [inner]}


def fresh(server, **configuration):
    """Everything as at the start, with a user who may do all, and a bucket."""
    server.control("reset")
    equal(server.control("configure", **configuration)["ok"], True, "configured %s" % configuration) if configuration else None
    server.control("add_user", access_key_id="AKIAEXPORTER00000000", secret_access_key="secret/of+exporter")
    server.control("add_bucket", name="bucket")
    return Client(server)


# --- signatures and headers -------------------------------------------------------

def test_crc32c():
    equal(crc32c(b"123456789"), 0xE3069283, "CRC-32C of the standard's example")
    equal(crc32c(b"6789", crc32c(b"12345")), 0xE3069283, "CRC-32C goes on")
    equal(crc32c(bytes(32)), 0x8A9136AA, "CRC-32C of 32 zero bytes (RFC 3720)")


def test_signatures(server):
    client = fresh(server)
    equal(client.send("PUT", "/bucket/a", body=b"x").status, 200, "a right signature is accepted")
    for name in ("a b", "a+b=c&d", "a//b", "./x", "é%~-_.'()!*", "/lead", "x" * 900, ";,:@"):
        path = "/bucket/" + quote(name, safe="/-_.~")
        equal(client.send("PUT", path, body=b"x").status, 200, "key %r" % name[:20])
    keys = {o["key"] for o in server.control("objects", bucket="bucket")["objects"]}
    ok({"a+b=c&d", "é%~-_.'()!*", "/lead", "a//b", "./x"} <= keys, "keys are stored as they were meant", keys)
    entry = server.control("log")["log"][-1]
    equal((entry["signature"], entry["canonical_path"], entry["payload"], entry["principal"]),
          ("valid", True, "signed", USER_ARN), "the log tells of the signature")
    client.send("PUT", "/bucket/b(1)", body=b"x")
    equal(server.control("log")["log"][-1]["canonical_path"], False, "the log tells of an odd path")

    wrong = Client(server, secret="wrong")
    answer = wrong.send("GET", "/bucket/a", add={"x-ignored": "1"})
    equal(answer.summary, (403, "SignatureDoesNotMatch"), "wrong secret")
    ok("AWS4-HMAC-SHA256\n" in answer.tag("StringToSign") and "x-amz-date:" in answer.tag("CanonicalRequest"),
       "SignatureDoesNotMatch shows the canonical request")
    equal(server.control("log")["log"][-1]["signature"], "invalid", "the log says that it is invalid")
    equal(Client(server, key="AKIANOBODY").send("GET", "/bucket/a").summary, (403, "InvalidAccessKeyId"), "unknown key")
    equal(client.send("GET", "/bucket/a", drop=("authorization",)).summary, (403, "AccessDenied"), "unsigned request")
    equal(client.send("GET", "/bucket/a", drop=("authorization",), add={"Authorization": "AWS x:y"}).summary,
          (400, "InvalidRequest"), "another mechanism")
    equal(client.send("GET", "/bucket/a", add={"x-amz-meta-late": "1"}).tag("HeadersNotSigned"), "x-amz-meta-late",
          "an unsigned x-amz- header is refused")
    equal(client.send("GET", "/bucket/a", service="sts").summary, (400, "AuthorizationHeaderMalformed"), "wrong service")
    for seconds in (1200, -1200):
        equal(client.send("GET", "/bucket/a", when=seconds).summary, (403, "RequestTimeTooSkewed"), "clock off by %d s" % seconds)
    equal(client.send("GET", "/bucket/a", when=-600).status, 200, "clock off by 10 minutes is allowed")
    server.control("clock", offset=3600)
    answer = client.send("GET", "/bucket/a")
    equal(answer.code, "RequestTimeTooSkewed", "the server's clock can be moved")
    ok(answer.tag("ServerTime") and answer.tag("RequestTime"), "and is told")
    equal(client.send("GET", "/bucket/a", when=3600).status, 200, "a client that follows it is let in")


def test_payloads(server):
    client = fresh(server)
    put = lambda **more: client.send("PUT", "/bucket/a", body=b"data", **more)
    equal(put(payload="UNSIGNED-PAYLOAD").status, 200, "UNSIGNED-PAYLOAD")
    equal(server.control("log")["log"][-1]["payload"], "unsigned", "and the log tells")
    equal(put(payload="0" * 64).summary, (400, "XAmzContentSHA256Mismatch"), "wrong x-amz-content-sha256")
    equal(put(payload="nonsense").summary, (400, "InvalidArgument"), "nonsense for x-amz-content-sha256")
    equal(put(payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER").summary, (501, "NotImplemented"), "aws-chunked is refused")
    equal(put(headers={"Content-Encoding": "aws-chunked"}).summary, (501, "NotImplemented"), "aws-chunked as encoding too")
    md5 = base64.b64encode(hashlib.md5(b"data").digest()).decode()
    equal(put(headers={"Content-MD5": md5}).status, 200, "right Content-MD5")
    equal(put(headers={"Content-MD5": md5[::-1]}).summary, (400, "InvalidDigest"), "invalid Content-MD5")
    equal(put(headers={"Content-MD5": base64.b64encode(bytes(16)).decode()}).summary, (400, "BadDigest"), "wrong Content-MD5")
    equal(put(headers={"x-amz-checksum-crc32c": crc(b"data")}).status, 200, "right x-amz-checksum-crc32c")
    equal(put(headers={"x-amz-checksum-crc32c": crc(b"other")}).summary, (400, "BadDigest"), "wrong x-amz-checksum-crc32c")
    equal(put(headers={"x-amz-checksum-crc32c": "AA=="}).summary, (400, "InvalidRequest"), "short x-amz-checksum-crc32c")
    equal(client.send("PUT", "/bucket/a", content_length=False).summary, (411, "MissingContentLength"), "no Content-Length")
    server.control("configure", checksums="refuse")
    equal(put(headers={"x-amz-checksum-crc32c": crc(b"data")}).summary, (400, "InvalidArgument"), "a store without checksums")
    server.control("configure", checksums="verify")
    server.control("add_bucket", name="bucket", object_lock=True)
    equal(put().summary, (400, "InvalidRequest"), "object lock wants a checksum")


def test_regions(server):
    client = fresh(server)
    server.control("add_bucket", name="europe", region="eu-west-1")
    answer = client.send("PUT", "/europe/a", body=b"x")
    equal((answer.summary, answer.tag("Region")), ((400, "AuthorizationHeaderMalformed"), "eu-west-1"), "wrong region")
    equal(client.send("PUT", "/europe/a", body=b"x", region="eu-west-1").status, 200, "right region")
    answer = client.send("HEAD", "/europe")
    equal((answer.status, answer.headers["x-amz-bucket-region"], answer.body), (400, "eu-west-1", b""), "HeadBucket tells the region")
    equal(client.send("HEAD", "/europe", region="eu-west-1").headers["x-amz-bucket-region"], "eu-west-1", "HeadBucket")
    answer = client.send("GET", "/europe", "location=")
    equal(ElementTree.fromstring(answer.body).text, "eu-west-1", "GetBucketLocation from us-east-1")
    equal(ElementTree.fromstring(client.send("GET", "/bucket", "location=").body).text, None, "GetBucketLocation of us-east-1 is empty")
    server.control("add_bucket", name="moved", region="eu-west-1", wrong_region="redirect")
    answer = client.send("GET", "/moved", "list-type=2")
    equal((answer.summary, answer.headers["x-amz-bucket-region"], answer.headers["location"]),
          ((301, "PermanentRedirect"), "eu-west-1", None), "301 without Location")
    equal(client.send("GET", "/nothing/a").summary, (404, "NoSuchBucket"), "NoSuchBucket")
    equal(client.send("GET", "/bucket", "acl=").summary, (501, "NotImplemented"), "what is not implemented says so")


def test_hosts(server, tls):
    client = fresh(server)
    port = server.ports["s3"]
    equal(client.send("PUT", "/a", body=b"x", host="bucket.localhost:%d" % port).status, 200, "virtual-hosted address")
    equal(server.control("log")["log"][-1]["addressing"], "virtual", "is told apart")
    equal(client.send("GET", "/bucket/a").body, b"x", "and is the same object by path")
    equal(client.send("PUT", "//a", body=b"x", host="bucket.localhost:%d" % port).status, 200, "a key that begins with a slash")
    equal(server.control("objects", bucket="bucket")["objects"][0]["key"], "/a", "keeps it")
    equal(client.send("GET", "/bucket/a", tls=tls).body, b"x", "TLS on the same port")

    server.control("add_bucket", name="europe", region="eu-west-1")
    def through_proxy(host, path, region, service="s3", **more):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=20)
        connection.set_tunnel(host, 443)
        return client.send(more.pop("method", "GET"), path, host=host, region=region, connection=connection, service=service, **more)
    equal(through_proxy("bucket.s3.us-east-1.amazonaws.com", "/a", "us-east-1").body, b"x", "AWS's host name through CONNECT")
    entry = server.control("log")["log"][-1]
    equal((entry["tunnel"], entry["tls"], entry["bucket"]), ("bucket.s3.us-east-1.amazonaws.com:443", True, "bucket"), "and the log tells")
    answer = through_proxy("europe.s3.us-east-1.amazonaws.com", "/a", "us-east-1")
    equal((answer.summary, answer.tag("Endpoint")), ((301, "PermanentRedirect"), "s3.eu-west-1.amazonaws.com"), "AWS's redirect")
    equal(through_proxy("europe.s3.eu-west-1.amazonaws.com", "/a", "us-east-1").code, "AuthorizationHeaderMalformed", "right host, wrong scope")
    equal(through_proxy("europe.s3.eu-west-1.amazonaws.com", "/a", "eu-west-1").code, "NoSuchKey", "right host, right scope")
    answer = through_proxy("sts.eu-west-1.amazonaws.com", "/", "eu-west-1", "sts", method="POST",
                           headers={"Content-Type": "application/x-www-form-urlencoded"}, body=b"Version=2011-06-15&Action=GetCallerIdentity")
    equal(answer.tag("Arn"), USER_ARN, "STS by AWS's host name")


# --- objects ----------------------------------------------------------------------

def test_objects(server):
    client = fresh(server)
    headers = {"x-amz-meta-token": "t1", "Content-Type": "text/csv", "x-amz-storage-class": "STANDARD_IA",
               "x-amz-tagging": "a=1&b=%20", "x-amz-acl": "bucket-owner-full-control",
               "x-amz-expected-bucket-owner": ACCOUNT}
    put = lambda **more: client.send("PUT", "/bucket/dir/a.csv", body=b"0123456789", **more)
    answer = put(headers=headers)
    equal((answer.status, answer.headers["etag"]), (200, '"%s"' % hashlib.md5(b"0123456789").hexdigest()), "PutObject")
    answer = client.send("HEAD", "/bucket/dir/a.csv")
    equal((answer.headers["content-length"], answer.headers["x-amz-meta-token"], answer.headers["content-type"],
           answer.headers["x-amz-storage-class"]), ("10", "t1", "text/csv", "STANDARD_IA"), "HeadObject")
    equal(client.send("GET", "/bucket/dir/a.csv").body, b"0123456789", "GetObject")
    for wanted, body in (("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=8-99", b"89")):
        answer = client.send("GET", "/bucket/dir/a.csv", headers={"Range": wanted})
        equal((answer.status, answer.body), (206, body), "Range " + wanted)
    equal(client.send("GET", "/bucket/dir/a.csv", headers={"Range": "bytes=10-"}).summary, (416, "InvalidRange"), "Range beyond the end")
    equal(put(headers={"If-None-Match": "*"}).summary, (412, "PreconditionFailed"), "If-None-Match")
    for name, value, code in (("x-amz-storage-class", "FAST", "InvalidStorageClass"), ("x-amz-tagging", "a=1&a=2", "InvalidArgument"),
                              ("x-amz-acl", "all", "InvalidArgument"), ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
                              ("x-amz-meta-long", "x" * 2100, "MetadataTooLarge")):
        equal(put(headers={name: value}).summary, (400, code), "%s: %s" % (name, value[:12]))
    equal(put(headers={"x-amz-expected-bucket-owner": "999999999999"}).summary, (403, "AccessDenied"), "another bucket owner")
    equal(client.send("PUT", "/bucket/" + "k" * 1025, body=b"").summary, (400, "KeyTooLongError"), "a key of 1,025 bytes")
    equal(client.send("DELETE", "/bucket/dir/a.csv").status, 204, "DeleteObject")
    equal(client.send("DELETE", "/bucket/dir/a.csv").status, 204, "DeleteObject of nothing")
    equal(client.send("GET", "/bucket/dir/a.csv").summary, (404, "NoSuchKey"), "NoSuchKey")
    equal(client.send("HEAD", "/bucket/dir/a.csv").status, 404, "HeadObject of nothing")
    server.control("put_object", bucket="bucket", key="made", body="abc", headers={"x-amz-meta-x": "y"})
    equal(client.send("GET", "/bucket/made").body, b"abc", "put_object by control")


def test_list(server):
    client = fresh(server, list_page=2)
    for key in ("a/1", "a/2", "a/b/3", "z", "é&"):
        server.control("put_object", bucket="bucket", key=key)
    def keys(query):
        answer = client.send("GET", "/bucket", "list-type=2" + query)
        return re.findall("<Key>(.*?)</Key>", answer.body.decode()), answer
    names, answer = keys("&prefix=a%2F")
    equal((names, answer.tag("IsTruncated"), answer.tag("KeyCount")), (["a/1", "a/2"], "true", "2"), "ListObjectsV2 by pages")
    names, answer = keys("&prefix=a%2F&continuation-token=" + quote(answer.tag("NextContinuationToken"), safe=""))
    equal((names, answer.tag("IsTruncated")), (["a/b/3"], "false"), "the next page")
    names, answer = keys("&prefix=a%2F&delimiter=%2F&start-after=a%2F1")
    equal((names, re.findall("<CommonPrefixes><Prefix>(.*?)<", answer.body.decode())), (["a/2"], ["a/b/"]), "delimiter")
    equal(keys("&start-after=z&encoding-type=url")[0], ["%C3%A9%26"], "encoding-type=url")
    equal(keys("&max-keys=x")[1].summary, (400, "InvalidArgument"), "max-keys that is no number")


def test_encryption(server):
    key = "arn:aws:kms:us-east-1:%s:key/k1" % ACCOUNT
    client = fresh(server, kms_keys=[key])
    sse, kms = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"
    put = lambda **headers: client.send("PUT", "/bucket/a", headers=headers, body=b"x")
    equal(put(**{sse: "AES256"}).headers[sse], "AES256", "AES256")
    answer = put(**{sse: "aws:kms", kms: "k1", sse + "-bucket-key-enabled": "true"})
    equal((answer.status, answer.headers[kms]), (200, key), "aws:kms with a key")
    equal(put(**{sse: "aws:kms"}).status, 200, "aws:kms with the account's own key")
    equal(put(**{sse: "aws:kms", kms: "k2"}).summary, (400, "KMS.NotFoundException"), "no such KMS key")
    equal(put(**{sse: "rot13"}).summary, (400, "InvalidEncryptionAlgorithmError"), "unknown encryption")
    equal(put(**{sse: "AES256", kms: "k1"}).summary, (400, "InvalidArgument"), "a KMS key with AES256")
    equal(client.send("GET", "/bucket/a", headers={sse: "AES256"}).summary, (400, "InvalidArgument"), "encryption on GetObject")
    upload = client.create(headers={sse: "aws:kms", kms: key})
    equal(client.part(upload, 1, b"x", headers={sse: "AES256"}).summary, (400, "InvalidArgument"), "encryption on UploadPart")
    etag = client.part(upload, 1, b"x").headers["etag"]
    equal(client.complete(upload, [(1, etag)], headers={sse: "AES256"}).summary, (400, "InvalidArgument"), "encryption on Complete")
    server.control("set_policy", arn=USER_ARN, policy=statement("s3:*", "*"))
    answer = put(**{sse: "aws:kms", kms: "k1"})
    ok(answer.summary == (403, "AccessDenied") and "kms:GenerateDataKey" in answer.tag("Message"), "kms:GenerateDataKey is needed", answer.body)
    server.control("set_policy", arn=USER_ARN, policy=statement(["s3:*", "kms:GenerateDataKey"], "*"))
    equal(put(**{sse: "aws:kms", kms: "k1"}).status, 200, "and suffices for one PUT")
    ok("kms:Decrypt" in client.part(upload, 2, b"x").tag("Message"), "parts need kms:Decrypt")


# --- multipart uploads --------------------------------------------------------------

def test_multipart(server):
    client = fresh(server)
    upload = client.create(headers={"x-amz-meta-token": "t"})
    first, second = b"a" * (5 * MIB), b"b" * 10
    etags = [client.part(upload, n, data).headers["etag"] for n, data in ((1, first), (2, second))]
    equal(server.control("uploads", bucket="bucket")["uploads"][0]["parts"], {"1": 5 * MIB, "2": 10}, "open uploads are listed")
    answer = client.send("GET", "/bucket", "uploads=&prefix=b")
    equal((answer.tag("UploadId"), answer.tag("Key")), (upload, "big"), "ListMultipartUploads")
    answer = client.send("GET", "/bucket/big", "max-parts=1&uploadId=" + quote(upload, safe=""))
    equal((answer.tag("Size"), answer.tag("IsTruncated"), answer.tag("NextPartNumberMarker")), (str(5 * MIB), "true", "1"), "ListParts")
    done = list(enumerate(etags, 1))
    equal(client.complete(upload, done[::-1]).summary, (400, "InvalidPartOrder"), "parts out of order")
    equal(client.complete(upload, [(1, etags[1]), (2, etags[1])]).summary, (400, "InvalidPart"), "a wrong ETag")
    equal(client.complete(upload, done + [(3, etags[1])]).summary, (400, "InvalidPart"), "a part that is not there")
    equal(client.complete(upload, []).summary, (400, "MalformedXML"), "no parts")
    equal(client.complete(upload, done, headers={"Content-Type": "application/x-www-form-urlencoded"}).code, "InvalidRequest", "a form's type")
    equal(client.complete(upload, done, headers={"x-amz-mp-object-size": "7"}).summary, (400, "InvalidRequest"), "wrong x-amz-mp-object-size")
    equal(server.control("objects", bucket="bucket")["objects"], [], "no object before the right Complete")
    server.control("put_object", bucket="bucket", key="big")
    equal(client.complete(upload, done, headers={"If-None-Match": "*"}).summary, (412, "PreconditionFailed"), "If-None-Match on Complete")
    server.control("delete_object", bucket="bucket", key="big")
    answer = client.complete(upload, done, headers={"If-None-Match": "*", "x-amz-mp-object-size": str(5 * MIB + 10)})
    wanted = hashlib.md5(hashlib.md5(first).digest() + hashlib.md5(second).digest()).hexdigest() + "-2"
    equal((answer.status, answer.tag("ETag")), (200, '"%s"' % wanted), "Complete")
    equal(client.send("GET", "/bucket/big").body, first + second, "the object is its parts")
    stored = server.control("objects", bucket="bucket")["objects"][0]
    equal((stored["part_sizes"], stored["headers"]["x-amz-meta-token"]), ([5 * MIB, 10], "t"), "its parts and metadata by control")
    with urllib.request.urlopen("http://127.0.0.1:%d/object?bucket=bucket&key=big" % server.ports["control"]) as answer:
        equal(answer.read(), first + second, "its bytes by control")
    equal(client.complete(upload, done).status, 200, "Complete again is the same answer")
    server.control("configure", complete_repeat="NoSuchUpload")
    equal(client.complete(upload, done).summary, (404, "NoSuchUpload"), "or NoSuchUpload where the store is so")
    equal(client.part(upload, 3, b"x").summary, (404, "NoSuchUpload"), "a part after Complete")

    upload = client.create()
    for number in ("0", "10001", "x", ""):
        equal(client.send("PUT", "/bucket/big", "partNumber=%s&uploadId=%s" % (number, quote(upload, safe="")), body=b"x").summary,
              (400, "InvalidArgument"), "part number %r" % number)
    small = [(n, client.part(upload, n, b"x").headers["etag"]) for n in (1, 2)]
    equal(client.complete(upload, small).summary, (400, "EntityTooSmall"), "a small part")
    server.control("configure", min_part_size=1)
    equal(client.abort(upload).status, 204, "Abort")
    equal(client.abort(upload).summary, (404, "NoSuchUpload"), "Abort again")
    equal(client.part(upload, 1, b"x").summary, (404, "NoSuchUpload"), "a part after Abort")
    equal(client.complete(upload, small).summary, (404, "NoSuchUpload"), "Complete after Abort")
    server.control("add_bucket", name="bucket", equal_parts=True)
    upload = client.create()
    uneven = [(n, client.part(upload, n, d).headers["etag"]) for n, d in ((1, b"x"), (2, b"xx"), (3, b"x"))]
    equal(client.complete(upload, uneven).summary, (400, "InvalidPart"), "a store that wants equal parts")
    upload = client.create(key="other")
    equal(client.part(upload, 1, b"x", key="big").summary, (404, "NoSuchUpload"), "an upload of another key")
    server.control("remove_upload", bucket="bucket", upload_id=upload)
    equal(client.part(upload, 1, b"x", key="other").summary, (404, "NoSuchUpload"), "an upload removed by control")


def test_multipart_checksums(server):
    client = fresh(server, min_part_size=1)
    full = {"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"}
    upload = client.create(headers=full)
    equal(client.part(upload, 1, b"ab").summary, (400, "InvalidRequest"), "a part without the upload's checksum")
    equal(client.part(upload, 1, b"ab", headers={"x-amz-checksum-crc32c": crc(b"zz")}).summary, (400, "BadDigest"), "a part with a wrong one")
    parts = []
    for number, data in ((1, b"ab"), (2, b"cd")):
        answer = client.part(upload, number, data, headers={"x-amz-checksum-crc32c": crc(data)})
        equal(answer.headers["x-amz-checksum-crc32c"], crc(data), "part %d with the right one" % number)
        parts.append((number, answer.headers["etag"], crc(data)))
    equal(client.complete(upload, [p[:2] for p in parts]).summary, (400, "InvalidRequest"), "Complete without the parts' checksums")
    equal(client.complete(upload, [(1, parts[0][1], crc(b"zz")), parts[1]]).summary, (400, "InvalidPart"), "Complete with a wrong one")
    equal(client.complete(upload, parts, headers={"x-amz-checksum-crc32c": crc(b"zz")}).summary, (400, "BadDigest"), "a wrong one of the whole")
    equal(client.complete(upload, parts, headers={"x-amz-checksum-type": "COMPOSITE"}).summary, (400, "InvalidRequest"), "another type")
    answer = client.complete(upload, parts, headers={"x-amz-checksum-crc32c": crc(b"abcd"), "x-amz-checksum-type": "FULL_OBJECT"})
    equal((answer.status, answer.tag("ChecksumCRC32C"), answer.tag("ChecksumType")), (200, crc(b"abcd"), "FULL_OBJECT"), "the right one of the whole")
    upload = client.create()
    equal(client.part(upload, 1, b"ab", headers={"x-amz-checksum-crc32c": crc(b"ab")}).summary, (400, "InvalidRequest"),
          "a checksum that Create did not announce")
    upload = client.create(headers={"x-amz-checksum-algorithm": "CRC32C"})
    part = client.part(upload, 1, b"ab", headers={"x-amz-checksum-crc32c": crc(b"ab")})
    answer = client.complete(upload, [(1, part.headers["etag"], crc(b"ab"))])
    equal(answer.tag("ChecksumCRC32C"), crc(crc32c(b"ab").to_bytes(4, "big")) + "-1", "COMPOSITE is a checksum of checksums")


def test_etags(server):
    for style, pattern in (("quot", b"<ETag>&quot;[0-9a-f-]+&quot;</ETag>"), ("num", b"<ETag>&#34;[0-9a-f-]+&#34;</ETag>"),
                           ("plain", b'<ETag>"[0-9a-f-]+"</ETag>'), ("bare", b"<ETag>[0-9a-f-]+</ETag>"), ("empty", b"<ETag></ETag>")):
        client = fresh(server, etag_style=style)
        upload = client.create()
        etag = client.part(upload, 1, b"x").headers["etag"]
        equal(etag.startswith('"'), style != "bare", "%s: header" % style)
        body = client.complete(upload, [(1, etag)]).body
        ok(re.search(pattern, body), "%s: body" % style, body)
    client = fresh(server, opaque_etags=True)
    upload = client.create()
    etag = client.part(upload, 1, b"x").headers["etag"]
    ok("&<" in etag, "opaque ETags are no MD5", etag)
    equal(client.complete(upload, [(1, etag)]).status, 200, "and have to be escaped in XML")


# --- an ordinary client -------------------------------------------------------------

def test_sdk(server):
    """What the server says is understood by an S3 client that is not ours."""
    import botocore.exceptions
    import botocore.session
    fresh(server, min_part_size=1)
    # No aws-chunked, which newer versions use by default.
    os.environ.update(AWS_REQUEST_CHECKSUM_CALCULATION="when_required", AWS_EC2_METADATA_DISABLED="true",
                      AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null")
    common = {"endpoint_url": "http://127.0.0.1:%d" % server.ports["s3"], "region_name": "us-east-1",
              "aws_access_key_id": "AKIAEXPORTER00000000", "aws_secret_access_key": "secret/of+exporter"}
    s3 = botocore.session.get_session().create_client("s3", **common)
    here = {"Bucket": "bucket", "Key": "a dir/é+&.csv"}
    upload = {**here, "UploadId": s3.create_multipart_upload(Metadata={"token": "t"}, **here)["UploadId"]}
    parts = [{"PartNumber": n, "ETag": s3.upload_part(PartNumber=n, Body=b"x" * n, **upload)["ETag"]} for n in (1, 2)]
    equal([p["Size"] for p in s3.list_parts(**upload)["Parts"]], [1, 2], "list_parts")
    equal(s3.list_multipart_uploads(Bucket="bucket")["Uploads"][0]["Key"], here["Key"], "list_multipart_uploads")
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
    ok(done["ETag"].endswith('-2"'), "complete_multipart_upload", done)
    head = s3.head_object(**here)
    equal((head["ContentLength"], head["Metadata"], head["ServerSideEncryption"]), (3, {"token": "t"}, "AES256"), "head_object")
    equal(s3.get_object(Range="bytes=1-", **here)["Body"].read(), b"xx", "get_object")
    s3.put_object(Body=b"", ContentType="text/csv", Tagging="a=b", **{**here, "Key": "empty"})
    equal([(o["Key"], o["Size"]) for o in s3.list_objects_v2(Bucket="bucket")["Contents"]], [(here["Key"], 3), ("empty", 0)], "list_objects_v2")
    equal(s3.get_bucket_location(Bucket="bucket")["LocationConstraint"], None, "get_bucket_location")
    s3.delete_object(**here)
    try:
        s3.get_object(**here)
        ok(False, "get_object of nothing")
    except botocore.exceptions.ClientError as error:
        equal(error.response["Error"]["Code"], "NoSuchKey", "get_object of nothing")
    role = server.control("add_role", name="uploads", trust=trust({"AWS": USER_ARN}), policy=ALL)["arn"]
    sts = botocore.session.get_session().create_client("sts", **common)
    found = sts.assume_role(RoleArn=role, RoleSessionName="session")
    equal(found["AssumedRoleUser"]["Arn"], "arn:aws:sts::%s:assumed-role/uploads/session" % ACCOUNT, "assume_role")
    ok(timedelta(minutes=59) < found["Credentials"]["Expiration"] - datetime.now(timezone.utc) <= timedelta(hours=1), "and its expiry")


# --- permissions ------------------------------------------------------------------

def test_policies(server):
    client = fresh(server)
    arn = "arn:aws:s3:::bucket"
    def policy(document):
        answer = server.control("set_policy", arn=USER_ARN, policy=document)
        equal(answer["ok"], True, "policy set") if not answer["ok"] else None
    policy({"Version": "2012-10-17", "Statement": [
        {"Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": arn},
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"], "Resource": arn + "/exports/*"}]})
    equal(client.send("PUT", "/bucket/exports/a", body=b"x").status, 200, "what the policy allows")
    answer = client.send("PUT", "/bucket/elsewhere", body=b"x")
    equal(answer.tag("Message"), 'User: %s is not authorized to perform: s3:PutObject on resource: "%s/elsewhere" because no '
          "identity-based policy allows the s3:PutObject action" % (USER_ARN, arn), "another key, in AWS's words")
    equal(client.send("GET", "/bucket/exports/a").summary, (403, "AccessDenied"), "another action")
    equal(client.send("HEAD", "/bucket").status, 200, "HeadBucket is s3:ListBucket")
    server.control("configure", explain_denied=False)
    equal(client.send("GET", "/bucket/exports/a").tag("Message"), "Access Denied", "the short text")
    policy(statement("s3:GetObject", arn + "/*"))
    equal(client.send("GET", "/bucket/none").summary, (403, "AccessDenied"), "no ListBucket: a key that is not there is 403")
    equal(client.send("HEAD", "/bucket").status, 403, "no ListBucket: HeadBucket is 403")
    policy(statement(["s3:GetObject", "s3:ListBucket"], "*"))
    equal(client.send("GET", "/bucket/none").summary, (404, "NoSuchKey"), "with ListBucket it is 404")
    policy(statement("s3:ListBucket", arn, Condition={"StringLike": {"s3:prefix": "exports/*"}}))
    equal(client.send("GET", "/bucket", "list-type=2&prefix=exports%2Fa").status, 200, "condition on the prefix: right")
    equal(client.send("GET", "/bucket", "list-type=2").status, 403, "condition on the prefix: wrong")
    policy(ALL)
    server.control("set_policy", arn=arn, policy=statement("s3:DeleteObject", arn + "/*", "Deny"))
    equal(client.send("DELETE", "/bucket/exports/a").status, 403, "a bucket policy denies")
    equal(client.send("PUT", "/bucket/b", headers={"x-amz-tagging": "a=b"}, body=b"").status, 200, "tags are allowed")
    policy(statement("s3:PutObject", "*"))
    equal(client.send("PUT", "/bucket/b", headers={"x-amz-tagging": "a=b"}, body=b"").status, 403, "tags need s3:PutObjectTagging")
    for document in ({"Statement": [{"Effect": "Allow", "Action": "s3:*"}]}, {"Statement": [{"Effect": "Perhaps", "Action": "*", "Resource": "*"}]},
                     statement("s3:*", "bucket/*"), statement("s3:*", "*", Condition={"Guess": {}}), {"Statment": []}):
        equal(server.control("set_policy", arn=USER_ARN, policy=document)["ok"], False, "not a policy: %r" % str(document)[:50])


# --- STS --------------------------------------------------------------------------

def session_of(server, answer):
    return Client(server, answer.tag("AccessKeyId"), answer.tag("SecretAccessKey"), answer.tag("SessionToken"))


def test_assume_role(server):
    client = fresh(server, min_duration=1)
    role = server.control("add_role", name="uploads", max_session_duration=7200,
                          trust=trust({"AWS": USER_ARN}, {"StringEquals": {"sts:ExternalId": "ext-42"}}),
                          policy=statement("s3:*", "arn:aws:s3:::bucket/in/*"))["arn"]
    assume = lambda **form: client.sts(Action="AssumeRole", **{"RoleArn": role, "RoleSessionName": "s3export-1", **form})
    denied = "User: %s is not authorized to perform: sts:AssumeRole on resource: %s" % (USER_ARN, role)
    answer = assume(ExternalId="ext-42")
    equal((answer.status, answer.tag("Arn")), (200, "arn:aws:sts::%s:assumed-role/uploads/s3export-1" % ACCOUNT), "right external ID")
    ok(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.tag("Expiration")), "Expiration")
    entry = server.control("log", service="sts")["log"][-1]
    equal((entry["form"]["ExternalId"], entry["signature"], entry["operation"]), ("ext-42", "valid", "AssumeRole"), "the log has the form")
    session = session_of(server, answer)
    equal(session.sts(Action="GetCallerIdentity").tag("Arn"), answer.tag("Arn"), "GetCallerIdentity of a session")
    equal(session.send("PUT", "/bucket/in/a", body=b"x").status, 200, "the session may what its role may")
    equal(session.send("PUT", "/bucket/out", body=b"x").summary, (403, "AccessDenied"), "and no more")
    for name, more in (("wrong", {"ExternalId": "ext-43"}), ("absent", {})):
        answer = assume(**more)
        equal((answer.summary, answer.tag("Message"), answer.tag("Type")), ((403, "AccessDenied"), denied, "Sender"), "external ID %s" % name)
    equal(assume(RoleArn=role + "x", ExternalId="ext-42").summary, (403, "AccessDenied"), "a role that does not exist is denied too")

    for more, part in (({"DurationSeconds": "0"}, "greater than or equal to 1"), ({"DurationSeconds": "43201"}, "less than or equal to 43200"),
                       ({"DurationSeconds": "7201"}, "MaxSessionDuration"), ({"RoleSessionName": "x"}, "length greater than or equal to 2"),
                       ({"RoleSessionName": "a b"}, "regular expression"), ({"ExternalId": "e"}, "length greater than or equal to 2"),
                       ({"ExternalId": "a b"}, "regular expression"), ({"RoleArn": "arn:aws:iam::1:role/uploads"}, "is invalid"),
                       ({"Policy": "x" * 2049}, "2048")):
        answer = assume(**{"ExternalId": "ext-42", **more})
        ok(answer.summary == (400, "ValidationError") and part in answer.tag("Message"), "ValidationError: %r" % str(more)[:40], answer.body)
    equal(assume(ExternalId="ext-42", Policy="{").summary, (400, "MalformedPolicyDocument"), "a session policy that is none")
    narrow = json.dumps(statement("s3:PutObject", "arn:aws:s3:::bucket/*/a"))
    session = session_of(server, assume(ExternalId="ext-42", Policy=narrow))
    equal(session.send("PUT", "/bucket/in/a", body=b"x").status, 200, "session policy: allowed by both")
    ok("no session policy" in session.send("PUT", "/bucket/in/b", body=b"x").tag("Message"), "session policy: allowed by the role only")
    ok("no identity-based" in session.send("PUT", "/bucket/out/a", body=b"x").tag("Message"), "session policy: allowed by it only")
    literal = json.dumps(statement("s3:PutObject", "arn:aws:s3:::bucket/in/${*}${$}"))
    session = session_of(server, assume(ExternalId="ext-42", Policy=literal))
    equal(session.send("PUT", "/bucket/in/%2A%24", body=b"x").status, 200, "session policy: characters that are patterns elsewhere")
    equal(session.send("PUT", "/bucket/in/ab", body=b"x").summary, (403, "AccessDenied"), "session policy: and are none here")

    ok(answer.tag("SessionToken") is None and session.token in server.control("secrets")["secrets"], "secrets")
    server.control("configure", longest_session=5)
    answer = assume(ExternalId="ext-42", DurationSeconds="3600")
    left = datetime.strptime(answer.tag("Expiration"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp() - time.time()
    ok(3 < left <= 5, "longest_session", left)
    server.control("configure", longest_session=None)

    server.control("configure", min_duration=900)
    ok("900" in assume(ExternalId="ext-42", DurationSeconds="899").tag("Message"), "AWS's minimum")
    server.control("configure", sts_disabled_regions=["us-east-1"])
    equal(assume(ExternalId="ext-42").summary, (403, "RegionDisabledException"), "RegionDisabledException")
    server.control("configure", sts_disabled_regions=[], expiration_format="nanos")
    ok(re.search(r"\.\d{9}Z$", assume(ExternalId="ext-42").tag("Expiration")), "Expiration with nanoseconds")
    role2 = server.control("add_role", name="later", trust=trust({"AWS": USER_ARN}), known_after=1)["arn"]
    equal(assume(RoleArn=role2).code, "AccessDenied", "a new role is not known yet")
    time.sleep(1.1)
    equal(assume(RoleArn=role2).status, 200, "and known after a while")


def test_trust(server):
    client = fresh(server)
    role = server.control("add_role", name="r", trust=trust({"AWS": "arn:aws:iam::%s:user/other" % ACCOUNT}))["arn"]
    assume = lambda who=client, **more: who.sts(Action="AssumeRole", RoleArn=role, RoleSessionName="session", **more)
    equal(assume().summary, (403, "AccessDenied"), "another principal")
    server.control("set_trust", arn=role, trust=trust({"AWS": "arn:aws:iam::%s:root" % ACCOUNT}))
    equal(assume().status, 200, "the account")
    server.control("set_policy", arn=USER_ARN, policy=statement("s3:*", "*"))
    equal(assume().code, "AccessDenied", "the account, and a user without sts:AssumeRole")
    server.control("set_trust", arn=role, trust=trust({"AWS": USER_ARN}))
    equal(assume().status, 200, "the user by name needs no policy in the same account")
    server.control("set_policy", arn=USER_ARN, policy=statement("sts:AssumeRole", role, "Deny"))
    equal(assume().code, "AccessDenied", "unless it is denied")
    equal(server.control("set_trust", arn=role, trust={"Statement": [{"Effect": "Allow"}]})["ok"], False, "not a trust policy")

    server.control("set_policy", arn=USER_ARN, policy=None)
    end = server.control("add_role", name="end", trust=trust({"AWS": role}), max_session_duration=43200)["arn"]
    session = session_of(server, assume())
    chain = lambda seconds: session.sts(Action="AssumeRole", RoleArn=end, RoleSessionName="chained", DurationSeconds=seconds)
    equal(chain("3600").status, 200, "role chaining")
    answer = chain("3601")
    ok(answer.code == "ValidationError" and "role chaining" in answer.tag("Message"), "role chaining: an hour at most", answer.body)


def test_sessions(server):
    client = fresh(server, min_duration=1)
    role = server.control("add_role", name="r", trust=trust({"AWS": USER_ARN}), policy=ALL)["arn"]
    answer = client.sts(Action="AssumeRole", RoleArn=role, RoleSessionName="session", DurationSeconds="1")
    session = session_of(server, answer)
    equal(session.send("HEAD", "/bucket").status, 200, "a session of one second")
    equal(Client(server, session.key, session.secret).send("GET", "/bucket", "list-type=2").summary, (403, "InvalidAccessKeyId"), "no token")
    equal(Client(server, session.key, session.secret, "x" + session.token).send("GET", "/bucket/a").summary, (400, "InvalidToken"), "a wrong token")
    equal(Client(server, session.key, "x", session.token).send("GET", "/bucket/a").summary, (403, "SignatureDoesNotMatch"), "a wrong secret")
    equal(Client(server, client.key, client.secret, "t").send("GET", "/bucket/a").summary, (400, "InvalidToken"), "a token for long-term keys")
    time.sleep(1.1)
    equal(session.send("GET", "/bucket/a").summary, (400, "ExpiredToken"), "S3: expired")
    answer = session.sts(Action="GetCallerIdentity")
    equal((answer.summary, answer.tag("Message")), ((403, "ExpiredToken"), "The security token included in the request is expired"), "STS: expired")
    made = server.control("start_session", role=role)
    session = Client(server, made["access_key_id"], made["secret_access_key"], made["session_token"])
    equal(session.send("HEAD", "/bucket").status, 200, "a session made by control")
    server.control("expire_sessions")
    equal(session.send("HEAD", "/bucket").status, 400, "ended by control")


def test_sts_signatures(server):
    client = fresh(server)
    who = lambda by=client, **more: by.sts(Action="GetCallerIdentity", **more)
    answer = who()
    equal((answer.tag("Arn"), answer.tag("Account")), (USER_ARN, ACCOUNT), "GetCallerIdentity")
    equal(who(Client(server, "AKIANOBODY")).summary, (403, "InvalidClientTokenId"), "unknown key")
    answer = who(Client(server, secret="wrong"))
    ok(answer.summary == (403, "SignatureDoesNotMatch") and "The Canonical String" in answer.tag("Message"), "wrong secret", answer.body)
    equal(who(drop=("authorization",)).summary, (403, "MissingAuthenticationToken"), "unsigned")
    answer = who(when=-1200)
    ok(answer.code == "SignatureDoesNotMatch" and answer.tag("Message").startswith("Signature expired: "), "clock behind", answer.body)
    ok(who(when=1200).tag("Message").startswith("Signature not yet current: "), "clock ahead")
    equal(who(region="eu-west-1").tag("Message"), "Credential should be scoped to a valid region. ", "wrong region")
    equal(who(service="s3").tag("Message"), "Credential should be scoped to correct service: 'sts'. ", "wrong service")
    equal(client.sts(Action="Nothing").summary, (400, "InvalidAction"), "unknown action")
    server.control("add_user", access_key_id="AKIALATER", secret_access_key="s", known_after=60)
    equal(who(Client(server, "AKIALATER", "s")).code, "InvalidClientTokenId", "a new key is not known yet")


def test_web_identity(server):
    client = fresh(server, min_duration=1)
    issuer = "oidc.eks.us-east-1.amazonaws.com/id/TEST"
    role = server.control("add_role", name="pod", policy=ALL, trust=trust(
        {"Federated": "arn:aws:iam::%s:oidc-provider/%s" % (ACCOUNT, issuer)},
        {"StringEquals": {issuer + ":sub": "system:serviceaccount:db:pg", issuer + ":aud": "sts.amazonaws.com"}},
        "sts:AssumeRoleWithWebIdentity"))["arn"]
    server.control("add_web_identity", token="good-token", issuer=issuer, sub="system:serviceaccount:db:pg")
    server.control("add_web_identity", token="other-token", issuer=issuer, sub="system:serviceaccount:db:other")
    server.control("add_web_identity", token="old-token", issuer=issuer, sub="system:serviceaccount:db:pg", expires_in=-1)
    assume = lambda token: client.sts(Action="AssumeRoleWithWebIdentity", RoleArn=role, RoleSessionName="pod",
                                      WebIdentityToken=token, drop=("authorization", "x-amz-date"))
    answer = assume("good-token")
    equal(answer.status, 200, "AssumeRoleWithWebIdentity, unsigned")
    equal(session_of(server, answer).send("HEAD", "/bucket").status, 200, "its session")
    equal(assume("other-token").tag("Message"), "Not authorized to perform sts:AssumeRoleWithWebIdentity", "another subject")
    equal(assume("old-token").summary, (400, "ExpiredTokenException"), "an old token")
    equal(assume("what-token").summary, (400, "InvalidIdentityToken"), "an unknown token")
    ok("good-token" not in json.dumps(server.control("log")), "no web identity token in the log")


# --- metadata ---------------------------------------------------------------------

def get(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={n.replace("_", "-"): v for n, v in headers.items()})
    response = connection.getresponse()
    answer = Answer(response, response.read())
    connection.close()
    return answer


def test_metadata(server):
    fresh(server)
    imds, container = server.ports["imds"], server.ports["container"]
    role = server.control("add_role", name="node", trust=trust({"AWS": USER_ARN}), policy=ALL)["arn"]
    base = "/latest/meta-data/iam/security-credentials/"
    equal(get(imds, base).status, 401, "IMDS: no v1")
    ttl = {"X_aws_ec2_metadata_token_ttl_seconds": "21600"}
    equal(get(imds, "/latest/api/token", "PUT").status, 400, "IMDS: a token needs a time to live")
    equal(get(imds, "/latest/api/token", "PUT", X_Forwarded_For="1.2.3.4", **ttl).status, 403, "IMDS: not for proxies")
    token = {"X_aws_ec2_metadata_token": get(imds, "/latest/api/token", "PUT", **ttl).body.decode()}
    equal(get(imds, base, **token).status, 404, "IMDS: no role")
    server.control("set_instance_role", role=role, duration=100)
    equal(get(imds, base, **token).body, b"node", "IMDS: the role's name")
    found = json.loads(get(imds, base + "node", **token).body)
    client = Client(server, found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
    equal((found["Code"], client.send("HEAD", "/bucket").status), ("Success", 200), "IMDS: keys that work")
    equal(json.loads(get(imds, base + "node", **token).body)["AccessKeyId"], found["AccessKeyId"], "IMDS: the same while they last")
    server.control("set_instance_role", role=role, duration=100, renew=100)
    ok(json.loads(get(imds, base + "node", **token).body)["AccessKeyId"] != found["AccessKeyId"], "IMDS: new ones in time")
    equal(get(imds, base + "other", **token).status, 404, "IMDS: another role")
    server.control("clock", offset=30000)
    equal(get(imds, base, **token).status, 401, "IMDS: the token ends")
    server.control("clock", offset=0)

    server.control("set_container_role", role=role, path="/v2/credentials/x", authorization="secret token")
    equal(get(container, "/v2/credentials/x").status, 401, "container: no token")
    equal(get(container, "/v2/credentials/x", Authorization="secret token\n".strip() + "x").status, 401, "container: a wrong token")
    found = json.loads(get(container, "/v2/credentials/x", Authorization="secret token").body)
    client = Client(server, found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
    equal((found["RoleArn"], client.send("HEAD", "/bucket").status), (role, 200), "container: keys that work")
    equal(get(container, "/elsewhere", Authorization="secret token").status, 404, "container: another path")
    server.control("add_fault", do="error", match={"operation": "ContainerCredentials"}, code="Internal", status=500)
    equal(get(container, "/v2/credentials/x", Authorization="secret token").status, 500, "container: faults")
    ok("secret token" not in json.dumps(server.control("log")), "no token in the log")


# --- faults -----------------------------------------------------------------------

def fault(server, do, operation, **more):
    answer = server.control("add_fault", do=do, match={"operation": operation, **more.pop("match", {})}, **more)
    if not answer["ok"]:
        ok(False, "fault %s" % do, answer)
    return answer.get("id")


def last(server, operation=None):
    deadline = time.monotonic() + 5
    while True:
        entry = server.control("log", operation=operation)["log"][-1]
        if entry["finished"] or time.monotonic() > deadline:
            return entry
        time.sleep(0.02)


def test_fault_matching(server):
    client = fresh(server)
    put = lambda key="a": client.send("PUT", "/bucket/" + key, body=b"x").status
    fault(server, "slow_down", "PutObject", times=2, skip=1)
    equal([put() for _ in range(5)], [200, 503, 503, 200, 200], "skip and times")
    fault(server, "slow_down", "PutObject", match={"key": "^b"})
    equal([put("a"), put("b"), put("b")], [200, 503, 200], "key")
    upload = client.create()
    fault(server, "slow_down", "UploadPart", match={"part": 2})
    equal([client.part(upload, n, b"x").status for n in (1, 2, 2)], [200, 503, 200], "part")
    fault(server, "internal_error", "PutObject", times=None)
    equal([put() for _ in range(3)], [500] * 3, "for ever")
    equal([f["used"] for f in server.control("list_faults")["faults"]], [2, 1, 1, 3], "list_faults")
    server.control("clear_faults")
    equal(put(), 200, "clear_faults")
    fault(server, "error", "PutObject", match={"access_key_id": client.key}, code="Teapot", status=418, message="a <b>",
          fields={"Hint": "h"}, headers={"x-extra": "1"})
    answer = client.send("PUT", "/bucket/a", body=b"x")
    equal((answer.summary, answer.tag("Message"), answer.tag("Hint"), answer.headers["x-extra"]),
          ((418, "Teapot"), "a <b>", "h", "1"), "an error of one's own")
    fault(server, "expired_token", "GetCallerIdentity")
    equal(client.sts(Action="GetCallerIdentity").summary, (403, "ExpiredToken"), "STS has its own status and form")
    for wrong in ({"do": "nonsense"}, {"do": "reset", "match": {"oporation": 1}}, {"do": "slow_down", "when": "answer"}, {"do": "stall", "sec": 1}):
        equal(server.control("add_fault", **wrong)["ok"], False, "refused: %s" % wrong)


def test_connection_faults(server):
    client = fresh(server)
    data = b"x" * (4 * MIB)
    for when in ("early", "body", "before", "after"):
        fault(server, "reset", "PutObject", when=when)
        failure = client.fails("PUT", "/bucket/" + when, body=data)
        entry = last(server)
        equal((failure in ("ConnectionResetError", "RemoteDisconnected"), entry["ended"]), (True, "reset"), "reset %s (%s)" % (when, failure))
        equal(entry["body_size"], {"early": 0, "body": 2 * MIB}.get(when, len(data)), "bytes read: %s" % when)
    equal([o["key"] for o in server.control("objects", bucket="bucket")["objects"]], ["after"], "the work is done only after")
    fault(server, "close", "PutObject", when="body", at=1000, reset=False)
    client.fails("PUT", "/bucket/a", body=data)
    equal((last(server)["ended"], last(server)["body_size"]), ("closed", 1000), "closed within the body")
    fault(server, "close", "GetObject", when="answer", at=100, reset=False)
    equal(client.fails("GET", "/bucket/after"), "IncompleteRead", "closed within the answer")
    fault(server, "early_403", "PutObject")
    equal(client.send("PUT", "/bucket/a", body=b"x" * 1000).summary, (403, "AccessDenied"), "early 403")
    equal((last(server)["body_size"], last(server)["expected_body"]), (0, 1000), "without reading the body")
    connection = client.connect()
    equal([client.send("GET", "/bucket/after", connection=connection).status for _ in range(2)], [200, 200], "connections are kept")
    equal(len({e["connection"] for e in server.control("log")["log"][-2:]}), 1, "and are told apart")
    fault(server, "request_timeout", "GetObject")
    answer = client.send("GET", "/bucket/after", connection=connection)
    equal((answer.summary, answer.headers["connection"]), ((400, "RequestTimeout"), "close"), "RequestTimeout closes")
    connection.close()


def test_timing_faults(server):
    client = fresh(server)
    server.control("put_object", bucket="bucket", key="a", body="x" * 1000)
    def timed(call, *arguments, **more):
        start = time.monotonic()
        return call(*arguments, **more), time.monotonic() - start
    for when in ("early", "before", "after", "answer"):
        fault(server, "stall", "GetObject", seconds=0.4, when=when)
        answer, seconds = timed(client.send, "GET", "/bucket/a")
        ok(answer.status == 200 and len(answer.body) == 1000 and 0.35 < seconds < 3, "stall %s" % when, seconds)
    fault(server, "slow_read", "PutObject", rate=200000)
    answer, seconds = timed(client.send, "PUT", "/bucket/b", body=b"x" * 100000)
    ok(answer.status == 200 and seconds > 0.4, "slow_read", seconds)

    number = fault(server, "hold", "PutObject")
    result = []
    thread = threading.Thread(target=lambda: result.append(client.send("PUT", "/bucket/held", body=b"x").status))
    thread.start()
    equal(server.control("wait", operation="PutObject", count=2, finished=False)["reached"], True, "wait until a request has begun")
    equal(server.control("stats")["in_flight"]["PutObject"], 1, "in flight")
    equal((result, server.control("wait", operation="PutObject", count=2, timeout=0.1)["reached"]), ([], False), "held")
    server.control("release", id=number)
    thread.join(5)
    equal(result, [200], "released")
    server.control("wait", operation="PutObject", count=2)

    fault(server, "hold", "GetObject")
    connection = client.connect(timeout=0.3)
    equal(client.fails("GET", "/bucket/a", connection=connection), "TimeoutError", "a client that waits in vain")
    connection.close()
    entry = last(server, "GetObject")
    ok((entry["ended"] or "").startswith("peer: ") and entry["seconds"] < 2, "is seen to hang up", entry)


def test_answer_faults(server):
    client = fresh(server)
    get = lambda: client.send("GET", "/bucket/a")
    server.control("put_object", bucket="bucket", key="a", body="x")
    fault(server, "big_error", "GetObject")
    answer = get()
    ok(answer.status == 403 and len(answer.body) > 10 * MIB, "an error of 10 MB")
    fault(server, "html_error", "GetObject")
    answer = get()
    ok(answer.status == 500 and b"<html>" in answer.body and answer.headers["content-type"] == "text/html", "an error in HTML")
    fault(server, "hostile_region", "GetObject")
    equal(get().tag("Region"), "evil.com/", "a hostile region")
    for status in (302, 307):
        fault(server, "redirect", "GetObject", status=status)
        answer = get()
        equal((answer.status, answer.headers["location"]), (status, "http://169.254.169.254/latest/meta-data/"), "redirect %d" % status)
    fault(server, "bad_digest", "PutObject")
    equal([client.send("PUT", "/bucket/b", body=b"x").code for _ in range(2)], ["BadDigest", None], "BadDigest once")
    fault(server, "wrong_date", "GetObject", date_offset=-1200)
    told = datetime.strptime(get().headers["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=timezone.utc)
    ok(1190 < (datetime.now(timezone.utc) - told).total_seconds() < 1210, "a wrong Date")
    fault(server, "header", "GetObject", set={"X-Amz-Test": "v"}, remove=["etag"])
    answer = get()
    equal((answer.headers["x-amz-test"], answer.headers["etag"]), ("v", None), "headers set and removed")
    fault(server, "disk_full", "PutObject", bytes=1500)
    put = lambda: client.send("PUT", "/bucket/c", body=b"x" * 1000).summary
    equal([put(), put(), put()], [(200, None), (500, "InternalError"), (500, "InternalError")], "a full disk")
    server.control("clear_faults")
    fault(server, "disk_full", "PutObject", bytes=0, how="507")
    equal(put(), (507, "InternalError"), "a full disk: 507")
    server.control("clear_faults")
    fault(server, "disk_full", "PutObject", bytes=0, how="drop")
    ok(client.fails("PUT", "/bucket/c", body=b"x" * 1000), "a full disk: the connection drops")


def test_complete_faults(server):
    client = fresh(server)
    def uploaded():
        upload = client.create()
        return upload, [(1, client.part(upload, 1, b"data").headers["etag"])]
    count = lambda: len(server.control("objects", bucket="bucket")["objects"])

    fault(server, "no_etag", "UploadPart")
    upload = client.create()
    answer = client.part(upload, 1, b"x")
    equal((answer.status, answer.headers["etag"]), (200, None), "a part without ETag")
    upload, parts = uploaded()
    fault(server, "error_200", "CompleteMultipartUpload")
    equal(client.complete(upload, parts).summary, (200, "InternalError"), "200 with Error")
    equal(count(), 0, "and no object")
    for declaration_first in (False, True):
        upload, parts = uploaded()
        fault(server, "trickle", "CompleteMultipartUpload", seconds=0.5, interval=0.1, declaration_first=declaration_first)
        start = time.monotonic()
        answer = client.complete(upload, parts)
        ok(answer.status == 200 and time.monotonic() - start >= 0.5 and b"     " in answer.body
           and answer.body.startswith(b"<?xml" if declaration_first else b" ") and answer.tag("ETag"),
           "white space, then success%s" % (", after the declaration" if declaration_first else ""), answer.body)
    for then, check in (("error", lambda a: a.code == "InternalError" and a.status == 200),
                        ("truncate", lambda a: a.status == 200 and not a.tag("ETag") and b"</Complete" not in a.body)):
        upload, parts = uploaded()
        fault(server, "trickle", "CompleteMultipartUpload", seconds=0.1, interval=0.05, then=then)
        answer = client.complete(upload, parts)
        ok(check(answer), "white space, then %s" % then, answer.body)
    upload, parts = uploaded()
    fault(server, "trickle", "CompleteMultipartUpload", seconds=0.1, interval=0.05, then="close")
    ok(client.fails("POST", "/bucket/big", "uploadId=" + quote(upload, safe=""), body=b"<CompleteMultipartUpload><Part>"
                    b"<PartNumber>1</PartNumber><ETag>" + parts[0][1].encode() + b"</ETag></Part></CompleteMultipartUpload>"), "white space, then nothing")
    upload, parts = uploaded()
    fault(server, "truncate", "CompleteMultipartUpload", framed=True, at=60)
    answer = client.complete(upload, parts)
    equal((answer.status, len(answer.body)), (200, 60), "cut XML")
    upload, parts = uploaded()
    fault(server, "truncate", "CompleteMultipartUpload", at=60)
    xml = lambda: client.complete(upload, parts)
    try:
        xml()
        ok(False, "cut XML, connection closed")
    except http.client.IncompleteRead as error:
        equal(len(error.partial), 60, "cut XML, connection closed")

    server.control("delete_object", bucket="bucket", key="big")
    for forget, outcome in ((False, (200, None)), (True, (404, "NoSuchUpload"))):
        upload, parts = uploaded()
        fault(server, "lost_reply", "CompleteMultipartUpload", forget=forget)
        try:
            client.complete(upload, parts)
            ok(False, "a lost reply")
        except (http.client.HTTPException, OSError):
            equal((count(), last(server)["worked"]), (1, True), "a lost reply, and the object is there")
        equal(client.complete(upload, parts).summary, outcome, "then Complete again")
        server.control("delete_object", bucket="bucket", key="big")


def test_listen(server):
    client = fresh(server)
    server.control("put_object", bucket="bucket", key="a", body="x")
    fault(server, "hold", "GetObject")
    failures = []
    thread = threading.Thread(target=lambda: failures.append(client.fails("GET", "/bucket/a")))
    thread.start()
    server.control("wait", operation="GetObject", finished=False)
    server.control("listen", on=False)
    thread.join(5)
    ok(failures and failures[0], "stopping breaks connections", failures)
    equal(client.fails("GET", "/bucket/a"), "ConnectionRefusedError", "a server that does not listen")
    server.control("listen", on=True)
    equal(client.send("GET", "/bucket/a").status, 200, "and listens again, on the same port, with the same objects")


def test_control(server):
    fresh(server)
    for call, arguments in (("nonsense", {}), ("configure", {"colour": 1}), ("objects", {}), ("add_bucket", {"name": "x", "size": 1}),
                            ("stored_bytes", {}), ("__init__", {}), ("remove_user", {"access_key_id": "none"})):
        equal(server.control(call, **arguments)["ok"], False, "control refuses %s %s" % (call, arguments))


def test_throughput(server):
    client = fresh(server)
    upload = client.create(headers={"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"})
    data = os.urandom(16 * MIB)
    value, parts, lock = crc(data), [], threading.Lock()
    start = time.monotonic()
    def work(numbers):
        connection = client.connect(timeout=120)
        for number in numbers:
            answer = client.part(upload, number, data, headers={"x-amz-checksum-crc32c": value}, connection=connection)
            with lock:
                parts.append((number, answer.headers["etag"], value))
        connection.close()
    threads = [threading.Thread(target=work, args=(range(1 + i, 14, 4),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer = client.complete(upload, sorted(parts))
    seconds = time.monotonic() - start
    equal((answer.status, server.control("objects", bucket="bucket")["objects"][0]["size"]), (200, 13 * 16 * MIB), "208 MiB in 16 MiB parts, 4 at once")
    print("# %.1f s" % seconds)
    ok(server.control("stats")["most_in_flight"]["UploadPart"] > 1, "several parts at once")
    ok(answer.tag("ChecksumCRC32C") == crc(data * 13), "the whole object's checksum")


def make_certificate(directory):
    cert, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
    names = "IP:127.0.0.1,DNS:localhost,DNS:*.s3.us-east-1.amazonaws.com,DNS:*.s3.eu-west-1.amazonaws.com,DNS:sts.eu-west-1.amazonaws.com"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=s3 test server", "-addext", "subjectAltName=" + names, "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key


def main():
    directory = tempfile.mkdtemp(prefix="s3_server_test.")
    server = None
    try:
        cert, key = make_certificate(directory)
        server = ServerProcess(directory, "--cert", cert, "--key", key)
        tls = ssl.create_default_context(cafile=cert)
        test_crc32c()
        test_hosts(server, tls)
        for name, test in list(globals().items()):
            if name.startswith("test_") and name not in ("test_crc32c", "test_hosts"):
                print("# " + name)
                try:
                    test(server)
                except Exception as error:
                    import traceback
                    ok(False, "%s ran to its end" % name, error, traceback.format_exc())
        start = time.monotonic()
        equal(server.stop(), 0, "SIGTERM ends it")
        ok(time.monotonic() - start < 3, "at once")
    finally:
        if server and server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        shutil.rmtree(directory)
    print("1..%d" % Tap.count)
    return 1 if Tap.failed else 0


if __name__ == "__main__":
    sys.exit(main())
