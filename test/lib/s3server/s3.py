"""The S3 operations, as strict as AWS documents them."""
import base64
import binascii
import hashlib
import re
import secrets
import xml.etree.ElementTree as ElementTree
import zlib
from datetime import datetime, timezone
from email.utils import formatdate
from urllib.parse import parse_qsl, quote

from .crc32c import crc32c
from .errors import S3Error, element
from .message import Response
from .state import Part, StoredObject, Upload, allowed
from .s3_auth import authenticate

XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_PART = 5 * 1024 ** 3
STORAGE_CLASSES = ("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING",
                   "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "EXPRESS_ONEZONE")
CANNED_ACLS = ("private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read",
               "bucket-owner-read", "bucket-owner-full-control")
KEPT_HEADERS = ("content-type", "content-encoding", "content-disposition", "content-language", "cache-control",
                "expires", "x-amz-storage-class", "x-amz-tagging", "x-amz-acl")
SSE = "x-amz-server-side-encryption"
SSE_HEADERS = (SSE, SSE + "-aws-kms-key-id", SSE + "-context", SSE + "-bucket-key-enabled")
CHECKSUMS = ("crc32", "crc32c", "sha1", "sha256")

# What each operation needs: (IAM action, on the object or on the bucket)
ACTIONS = {
    "HeadBucket": ("s3:ListBucket", "bucket"),
    "GetBucketLocation": ("s3:GetBucketLocation", "bucket"),
    "ListObjectsV2": ("s3:ListBucket", "bucket"),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads", "bucket"),
    "PutObject": ("s3:PutObject", "object"),
    "GetObject": ("s3:GetObject", "object"),
    "HeadObject": ("s3:GetObject", "object"),
    "DeleteObject": ("s3:DeleteObject", "object"),
    "CreateMultipartUpload": ("s3:PutObject", "object"),
    "UploadPart": ("s3:PutObject", "object"),
    "CompleteMultipartUpload": ("s3:PutObject", "object"),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload", "object"),
    "ListParts": ("s3:ListMultipartUploadParts", "object"),
}


def identify(request):
    """The operation's name; "Unknown" for what is not implemented."""
    has, method = request.params.__contains__, request.method
    if not request.bucket:
        return "Unknown"
    if not request.key:
        if method == "HEAD":
            return "HeadBucket"
        if method == "GET":
            return ("GetBucketLocation" if has("location") else "ListMultipartUploads" if has("uploads")
                    else "ListObjectsV2" if request.params.get("list-type") == "2" else "Unknown")
        return "Unknown"
    if request.header("x-amz-copy-source"):
        return "Unknown"
    if method == "POST":
        return ("CreateMultipartUpload" if has("uploads") else
                "CompleteMultipartUpload" if has("uploadId") else "Unknown")
    if has("uploadId"):
        return {"PUT": "UploadPart", "DELETE": "AbortMultipartUpload", "GET": "ListParts"}.get(method, "Unknown")
    if set(request.params) & {"acl", "tagging", "retention", "legal-hold", "torrent", "restore"}:
        return "Unknown"
    return {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject",
            "DELETE": "DeleteObject"}.get(method, "Unknown")


def handle(world, request, operation):
    authenticate(world, request)
    if operation == "Unknown":
        raise S3Error("NotImplemented")
    call = _Call(world, request, operation)
    with world.lock:
        call.check()
    return getattr(call, operation)()


def _xml(root, inner):
    return Response(200, '<?xml version="1.0" encoding="UTF-8"?>\n<%s xmlns="%s">%s</%s>' % (root, XMLNS, inner, root),
                    {"Content-Type": "application/xml"})


def _iso(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _digest(algorithm, chunks):
    """A checksum in base64, as S3's headers have it."""
    if algorithm in ("crc32", "crc32c"):
        value = 0
        for chunk in chunks:
            value = zlib.crc32(chunk, value) if algorithm == "crc32" else crc32c(chunk, value)
        raw = value.to_bytes(4, "big")
    else:
        state = hashlib.new(algorithm)
        for chunk in chunks:
            state.update(chunk)
        raw = state.digest()
    return base64.b64encode(raw).decode()


class _Call:
    """One authenticated request."""

    def __init__(self, world, request, operation):
        self.world, self.request, self.operation = world, request, operation
        self.header, self.params, self.key = request.header, request.params, request.key

    # --- what is checked for each operation -----------------------------------

    def check(self):
        request = self.request
        self.bucket = self.world.buckets.get(request.bucket)
        if self.bucket is None:
            raise S3Error("NoSuchBucket", fields={"BucketName": request.bucket})
        self._check_region()
        owner = self.header("x-amz-expected-bucket-owner")
        if owner is not None and owner != self.bucket.owner:
            raise S3Error("AccessDenied")
        if len(self.key.encode("utf-8", "surrogateescape")) > 1024:
            raise S3Error("KeyTooLongError", fields={"Size": len(self.key), "MaxSizeAllowed": 1024})
        try:
            self.key.encode()
        except UnicodeEncodeError:
            raise S3Error("InvalidURI", fields={"URI": request.raw_path})
        action, where = ACTIONS[self.operation]
        self._authorise(action, where)
        self._check_encryption()
        if self.operation in ("PutObject", "CreateMultipartUpload"):
            self._check_new_object()
        if (self.operation in ("PutObject", "UploadPart", "CompleteMultipartUpload", "CreateMultipartUpload")
                and request.content_length is None):
            raise S3Error("MissingContentLength")
        if self.world.config["checksums"] == "refuse":
            for name in list(request.headers_like("x-amz-checksum-")) + list(request.headers_like("x-amz-sdk-")):
                raise S3Error("InvalidArgument", "Unsupported header '%s' received for this API call." % name)

    def _check_region(self):
        bucket, signed = self.bucket, self.request.signed
        endpoint = self.request.endpoint_region
        if self.operation == "GetBucketLocation" and signed.region == "us-east-1":
            return
        headers = {"x-amz-bucket-region": bucket.region}
        redirect = endpoint not in (None, bucket.region) or (
            endpoint is None and bucket.wrong_region == "redirect" and signed.region != bucket.region)
        if redirect:
            host = "s3.%s.amazonaws.com" % bucket.region if endpoint else self.request.host
            raise S3Error("PermanentRedirect", headers=headers, fields={"Endpoint": host, "Bucket": bucket.name})
        if signed.region != bucket.region:
            raise S3Error("AuthorizationHeaderMalformed",
                          "The authorization header is malformed; the region '%s' is wrong; expecting '%s'"
                          % (signed.region, bucket.region), fields={"Region": bucket.region}, headers=headers)

    def _authorise(self, action, where="object", resource=None):
        identity = self.request.identity
        if resource is None:
            resource = "arn:aws:s3:::" + self.bucket.name + ("/" + self.key if where == "object" else "")
        context = {"aws:SecureTransport": str(self.request.secure).lower()}
        if "prefix" in self.params or self.operation == "ListObjectsV2":
            context["s3:prefix"] = self.params.get("prefix", "")
        why = allowed(identity, action, resource, context, self.bucket)
        if why is not None:
            raise S3Error("AccessDenied", "User: %s is not authorized to perform: %s on resource: \"%s\" %s"
                          % (identity.arn, action, resource, why) if self.world.config["explain_denied"] else None,
                          headers={"x-amz-bucket-region": self.bucket.region} if where == "bucket" else {})

    def _check_encryption(self):
        given = self.request.headers_like(SSE)
        if not given:
            return
        for name, value in given.items():
            if self.operation not in ("PutObject", "CreateMultipartUpload"):
                raise S3Error("InvalidArgument", "%s header is not supported for this operation." % name,
                              fields={"ArgumentName": name, "ArgumentValue": value})
            if name not in SSE_HEADERS:
                raise S3Error("NotImplemented", fields={"Header": name})
        algorithm = given.get(SSE)
        if algorithm not in (None, "AES256", "aws:kms", "aws:kms:dsse"):
            raise S3Error("InvalidEncryptionAlgorithmError", fields={"ArgumentName": SSE, "ArgumentValue": algorithm})
        if algorithm in (None, "AES256") and len(given) > (algorithm is not None):
            raise S3Error("InvalidArgument", "Server Side Encryption with AWS KMS managed key requires HTTP header "
                          "x-amz-server-side-encryption : aws:kms",
                          fields={"ArgumentName": SSE, "ArgumentValue": algorithm})
        if given.get(SSE + "-bucket-key-enabled", "true").lower() not in ("true", "false"):
            raise S3Error("InvalidArgument", fields={"ArgumentName": SSE + "-bucket-key-enabled"})
        if SSE + "-context" in given:
            try:
                base64.b64decode(given[SSE + "-context"], validate=True)
            except binascii.Error:
                raise S3Error("InvalidArgument", fields={"ArgumentName": SSE + "-context"})
        key_id = given.get(SSE + "-aws-kms-key-id")
        if key_id is not None:
            if not {key_id, self._kms_arn(key_id)} & set(self.world.config["kms_keys"]):
                raise S3Error("KMS.NotFoundException", "Key '%s' does not exist" % self._kms_arn(key_id))
            self._authorise("kms:GenerateDataKey", resource=self._kms_arn(key_id))

    def _kms_arn(self, key_id):
        prefix = "arn:aws:kms:%s:%s:" % (self.bucket.region, self.bucket.owner)
        if key_id is None:
            return prefix + "alias/aws/s3"
        return key_id if key_id.startswith("arn:") else prefix + (key_id if "/" in key_id else "key/" + key_id)

    def _authorise_decrypt(self, upload):
        """What S3 needs to go on with an upload that the caller's own key encrypts."""
        arn = upload.headers.get(SSE + "-aws-kms-key-id", "alias/aws/s3")
        if not arn.endswith("alias/aws/s3"):
            self._authorise("kms:Decrypt", resource=arn)

    def _check_new_object(self):
        storage = self.header("x-amz-storage-class")
        if storage is not None and storage not in STORAGE_CLASSES:
            raise S3Error("InvalidStorageClass", fields={"StorageClassRequested": storage})
        acl = self.header("x-amz-acl")
        if acl is not None:
            if acl not in CANNED_ACLS:
                raise S3Error("InvalidArgument", fields={"ArgumentName": "x-amz-acl", "ArgumentValue": acl})
            if self.bucket.object_ownership == "BucketOwnerEnforced" and acl != "bucket-owner-full-control":
                raise S3Error("AccessControlListNotSupported")
            self._authorise("s3:PutObjectAcl")
        tagging = self.header("x-amz-tagging")
        if tagging is not None:
            tags = parse_qsl(tagging, keep_blank_values=True, strict_parsing=False)
            if (len({k for k, _ in tags}) != len(tags) or len(tags) > 10 or not tags
                    or not re.fullmatch(r"[A-Za-z0-9\-_.~%+=&/:@*!'()]*", tagging)):
                raise S3Error("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded "
                              "URL query parameters without tag name duplicates.",
                              fields={"ArgumentName": "x-amz-tagging", "ArgumentValue": tagging})
            self._authorise("s3:PutObjectTagging")
        size = sum(len(n) - len("x-amz-meta-") + len(v.encode()) for n, v in self.request.headers_like("x-amz-meta-").items())
        if size > 2048:
            raise S3Error("MetadataTooLarge", fields={"Size": size, "MaxSizeAllowed": 2048})

    # --- bodies ---------------------------------------------------------------

    def _verify_body(self):
        """Checks Content-MD5 and x-amz-checksum-*; returns the latter."""
        body, md5 = self.request.body, self.header("content-md5")
        if md5 is not None:
            try:
                if len(base64.b64decode(md5, validate=True)) != 16:
                    raise binascii.Error
            except binascii.Error:
                raise S3Error("InvalidDigest", fields={"Content-MD5": md5})
            actual = base64.b64encode(hashlib.md5(body).digest()).decode()
            if md5 != actual:
                raise S3Error("BadDigest", fields={"ExpectedDigest": md5, "CalculatedDigest": actual})
        given = {n.removeprefix("x-amz-checksum-"): v for n, v in self.request.headers_like("x-amz-checksum-").items()
                 if n not in ("x-amz-checksum-algorithm", "x-amz-checksum-type")}
        if len(given) > 1:
            raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
        for algorithm, value in given.items():
            self._check_value(algorithm, value)
            if value != _digest(algorithm, [body]):
                raise S3Error("BadDigest", "The %s you specified did not match the calculated checksum." % algorithm.upper())
        if self.bucket.object_lock and not given and md5 is None:
            raise S3Error("InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object "
                          "requests with Object Lock parameters")
        return given

    def _check_value(self, algorithm, value):
        if algorithm not in CHECKSUMS:
            raise S3Error("NotImplemented", fields={"Header": "x-amz-checksum-" + algorithm})
        length = {"crc32": 4, "crc32c": 4, "sha1": 20, "sha256": 32}[algorithm]
        try:
            right = len(base64.b64decode(value, validate=True)) == length
        except binascii.Error:
            right = False
        if not right:
            raise S3Error("InvalidRequest", "Value for x-amz-checksum-%s header is invalid." % algorithm)

    def _etag(self, digests, parts=0):
        if self.world.config["opaque_etags"]:
            return "o&<%s>" % secrets.token_hex(12)
        return hashlib.md5(digests).hexdigest() + ("-%d" % parts if parts else "")

    def _etag_header(self, etag):
        return etag if self.world.config["etag_style"] == "bare" else '"%s"' % etag

    def _etag_xml(self, etag, complete=False):
        style = self.world.config["etag_style"]
        if style == "empty" and complete:
            return "<ETag></ETag>"
        quote_mark = {"num": "&#34;", "plain": '"', "bare": ""}.get(style, "&quot;")
        return element("ETag", etag).replace(">", ">" + quote_mark, 1).replace("</ETag>", quote_mark + "</ETag>")

    def _kept_headers(self):
        kept = {n: self.header(n) for n in KEPT_HEADERS if self.header(n) is not None}
        kept.update(self.request.headers_like("x-amz-meta-"))
        kept.update(self.request.headers_like(SSE))
        if kept.get(SSE, "").startswith("aws:kms"):
            kept[SSE + "-aws-kms-key-id"] = self._kms_arn(kept.get(SSE + "-aws-kms-key-id"))
        return kept

    @staticmethod
    def _encryption_headers(headers):
        # S3 encrypts with AES256 when nothing is asked for, and says so.
        return {SSE: "AES256", **{n: v for n, v in headers.items() if n.startswith(SSE)}}

    def _refuse_existing(self):
        condition = self.header("if-none-match")
        if condition is None:
            return
        if condition != "*":
            raise S3Error("NotImplemented", fields={"Header": "If-None-Match"})
        if self.key in self.bucket.objects:
            raise S3Error("PreconditionFailed", fields={"Condition": "If-None-Match"})

    # --- buckets --------------------------------------------------------------

    def HeadBucket(self):
        return Response(200, b"", {"x-amz-bucket-region": self.bucket.region, "Content-Type": "application/xml"})

    def GetBucketLocation(self):
        region = "" if self.bucket.region == "us-east-1" else self.bucket.region
        return _xml("LocationConstraint", region)

    def ListObjectsV2(self):
        prefix, delimiter = self.params.get("prefix", ""), self.params.get("delimiter", "")
        token, after = self.params.get("continuation-token"), self.params.get("start-after", "")
        if token is not None:
            after = base64.urlsafe_b64decode(token).decode()
        limit = self._number("max-keys", self.world.config["list_page"], 0)
        limit = min(limit, self.world.config["list_page"])
        if self.params.get("encoding-type", "url") != "url":
            raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request",
                          fields={"ArgumentName": "encoding-type", "ArgumentValue": self.params["encoding-type"]})
        encode = (lambda s: quote(s, safe="/-_.~")) if "encoding-type" in self.params else (lambda s: s)
        entries, last = {}, None
        with self.world.lock:
            for key in sorted(self.bucket.objects, key=str.encode):
                if not key.startswith(prefix):
                    continue
                rest = key[len(prefix):]
                common = prefix + rest.split(delimiter)[0] + delimiter if delimiter and delimiter in rest else None
                if (common or key).encode() > after.encode():
                    entries.setdefault(common or key, None if common else self.bucket.objects[key])
        shown = list(entries.items())[:limit]
        inner = element("Name", self.bucket.name) + element("Prefix", encode(prefix)) + element("KeyCount", len(shown))
        inner += element("MaxKeys", limit) + element("IsTruncated", str(len(entries) > limit and limit > 0).lower())
        if len(entries) > limit > 0:
            last = base64.urlsafe_b64encode(shown[-1][0].encode()).decode()
            inner += element("NextContinuationToken", last)
        for name, echo in (("encoding-type", "EncodingType"), ("delimiter", "Delimiter"), ("start-after", "StartAfter"),
                           ("continuation-token", "ContinuationToken")):
            if name in self.params:
                value = self.params[name]
                inner += element(echo, value if name in ("encoding-type", "continuation-token") else encode(value))
        for name, stored in shown:
            if stored is None:
                inner += "<CommonPrefixes>%s</CommonPrefixes>" % element("Prefix", encode(name))
            else:
                inner += "<Contents>%s%s%s%s%s</Contents>" % (
                    element("Key", encode(name)), element("LastModified", _iso(stored.modified)),
                    self._etag_xml(stored.etag), element("Size", stored.size),
                    element("StorageClass", stored.headers.get("x-amz-storage-class", "STANDARD")))
        return _xml("ListBucketResult", inner)

    def ListMultipartUploads(self):
        prefix = self.params.get("prefix", "")
        limit = self._number("max-uploads", 1000, 1)
        after = (self.params.get("key-marker", ""), self.params.get("upload-id-marker", "\U0010ffff"))
        with self.world.lock:
            uploads = sorted((u for u in self.bucket.uploads.values()
                              if u.key.startswith(prefix) and ("key-marker" not in self.params or (u.key, u.id) > after)),
                             key=lambda u: (u.key, u.id))
        inner = element("Bucket", self.bucket.name) + element("Prefix", prefix) + element("MaxUploads", limit)
        inner += element("IsTruncated", str(len(uploads) > limit).lower())
        if len(uploads) > limit:
            inner += element("NextKeyMarker", uploads[limit - 1].key) + element("NextUploadIdMarker", uploads[limit - 1].id)
        for upload in uploads[:limit]:
            inner += "<Upload>%s%s%s</Upload>" % (element("Key", upload.key), element("UploadId", upload.id),
                                                 element("Initiated", _iso(upload.started)))
        return _xml("ListMultipartUploadsResult", inner)

    def _number(self, name, default, lowest):
        try:
            value = int(self.params.get(name, default))
        except ValueError:
            value = -1
        if value < lowest:
            raise S3Error("InvalidArgument", "Provided %s not an integer or within integer range" % name,
                          fields={"ArgumentName": name, "ArgumentValue": self.params[name]})
        return value

    # --- objects --------------------------------------------------------------

    def PutObject(self):
        checksums = self._verify_body()
        body = self.request.body
        if len(body) > MAX_PART:
            raise S3Error("EntityTooLarge", fields={"ProposedSize": len(body), "MaxSizeAllowed": MAX_PART})
        etag, kept = self._etag(body), self._kept_headers()
        with self.world.lock:
            self._refuse_existing()
            self.bucket.objects[self.key] = StoredObject([body], etag, kept, self.world.now(), checksums)
        headers = {"ETag": self._etag_header(etag), **self._encryption_headers(kept)}
        headers.update({"x-amz-checksum-" + n: v for n, v in checksums.items()})
        return Response(200, b"", headers)

    def _find_object(self):
        with self.world.lock:
            stored = self.bucket.objects.get(self.key)
            if stored is not None:
                return stored
            # Without the right to list, S3 does not say whether a key exists.
            self._authorise("s3:ListBucket", "bucket")
        raise S3Error("NoSuchKey", fields={"Key": self.key})

    def GetObject(self):
        stored = self._find_object()
        headers = {"ETag": self._etag_header(stored.etag), "Last-Modified": formatdate(stored.modified, usegmt=True),
                   "Accept-Ranges": "bytes", "content-type": "binary/octet-stream"}
        headers.update({n: v for n, v in stored.headers.items() if n not in ("x-amz-acl", "x-amz-tagging")})
        headers.update(self._encryption_headers(stored.headers))
        if self.header("x-amz-checksum-mode") == "ENABLED":
            headers.update({"x-amz-checksum-" + n: v for n, v in stored.checksums.items()})
        wanted = self.header("range")
        if wanted is None:
            headers["Content-Length"] = str(stored.size)
            return Response(200, b"" if self.request.method == "HEAD" else b"".join(stored.chunks), headers)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
        if not match or match[0] == "bytes=-":
            raise S3Error("InvalidArgument", fields={"ArgumentName": "Range", "ArgumentValue": wanted})
        size = stored.size
        first = int(match[1]) if match[1] else max(0, size - int(match[2]))
        last = min(size - 1, int(match[2]) if match[1] and match[2] else size - 1)
        if first >= size or first > last:
            raise S3Error("InvalidRange", fields={"RangeRequested": wanted, "ActualObjectSize": size})
        headers["Content-Range"] = "bytes %d-%d/%d" % (first, last, size)
        headers["Content-Length"] = str(last + 1 - first)
        return Response(206, b"".join(stored.chunks)[first:last + 1], headers)

    HeadObject = GetObject

    def DeleteObject(self):
        with self.world.lock:
            self.bucket.objects.pop(self.key, None)
        return Response(204)

    # --- multipart uploads ----------------------------------------------------

    def CreateMultipartUpload(self):
        algorithm = self.header("x-amz-checksum-algorithm")
        kind = self.header("x-amz-checksum-type")
        if algorithm is not None and algorithm.lower() not in CHECKSUMS:
            raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the "
                          "valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
        if kind is not None and (algorithm is None or kind not in ("FULL_OBJECT", "COMPOSITE")):
            raise S3Error("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
        if kind == "FULL_OBJECT" and algorithm.startswith("SHA"):
            raise S3Error("InvalidRequest", "The FULL_OBJECT checksum type cannot be used with the %s checksum algorithm." % algorithm.lower())
        if self.request.body:
            raise S3Error("InvalidRequest", "CreateMultipartUpload takes no body")
        upload = Upload(secrets.token_urlsafe(90) + ".-", self.key, self._kept_headers(), self.world.now(),
                        algorithm.lower() if algorithm else None,
                        (kind or "COMPOSITE") if algorithm else None)
        with self.world.lock:
            self.bucket.uploads[upload.id] = upload
        response = _xml("InitiateMultipartUploadResult", element("Bucket", self.bucket.name)
                        + element("Key", self.key) + element("UploadId", upload.id))
        response.headers.update(self._encryption_headers(upload.headers))
        if algorithm:
            response.headers.update({"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": upload.checksum_type})
        return response

    def _find_upload(self):
        upload = self.bucket.uploads.get(self.params.get("uploadId"))
        if upload is None or upload.key != self.key:
            raise S3Error("NoSuchUpload", fields={"UploadId": self.params.get("uploadId", "")})
        return upload

    def _part_number(self):
        text = self.params.get("partNumber", "")
        limit = self.world.config["max_parts"]
        if not text.isdecimal() or not 1 <= int(text) <= limit:
            raise S3Error("InvalidArgument", "Part number must be an integer between 1 and %d, inclusive" % limit,
                          fields={"ArgumentName": "partNumber", "ArgumentValue": text})
        return int(text)

    def UploadPart(self):
        number = self._part_number()
        with self.world.lock:
            upload = self._find_upload()
            self._authorise_decrypt(upload)
        checksums = self._verify_body()
        actual = next(iter(checksums), None)
        if actual != upload.algorithm:
            raise S3Error("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s"
                          % (upload.algorithm or "null", actual or "null"))
        body = self.request.body
        if len(body) > MAX_PART:
            raise S3Error("EntityTooLarge", fields={"ProposedSize": len(body), "MaxSizeAllowed": MAX_PART})
        etag = self._etag(body)
        with self.world.lock:
            self._find_upload()         # it may have been aborted meanwhile
            upload.parts[number] = Part(body, etag, self.world.now(), checksums)
        headers = {"ETag": self._etag_header(etag), **self._encryption_headers(upload.headers)}
        headers.update({"x-amz-checksum-" + n: v for n, v in checksums.items()})
        return Response(200, b"", headers)

    def _listed_parts(self):
        """The part list of a Complete request: (number, ETag, {algorithm: checksum}) each."""
        if (self.header("content-type") or "").startswith("application/x-www-form-urlencoded"):
            raise S3Error("InvalidRequest", "You can't use Content-Type: application/x-www-form-urlencoded with "
                          "Complete Multipart Upload requests")
        try:
            root = ElementTree.fromstring(bytes(self.request.body))
            if root.tag.split("}")[-1] != "CompleteMultipartUpload" or not len(root):
                raise ValueError
            listed = []
            for part in root:
                fields = {child.tag.split("}")[-1]: child.text or "" for child in part}
                unknown = set(fields) - {"PartNumber", "ETag"} - {"Checksum" + a.upper() for a in CHECKSUMS}
                if part.tag.split("}")[-1] != "Part" or unknown:
                    raise ValueError
                checksums = {n.removeprefix("Checksum").lower(): v for n, v in fields.items() if n.startswith("Checksum")}
                listed.append((int(fields["PartNumber"]), re.fullmatch('"?(.*?)"?', fields["ETag"])[1], checksums))
        except (ElementTree.ParseError, ValueError, KeyError):
            raise S3Error("MalformedXML")
        if len(listed) > self.world.config["max_parts"]:
            raise S3Error("MalformedXML")
        return listed

    def _check_parts(self, upload, listed):
        numbers = [number for number, _, _ in listed]
        if any(b <= a for a, b in zip(numbers, numbers[1:])):
            raise S3Error("InvalidPartOrder", fields={"UploadId": upload.id})
        minimum = self.world.config["min_part_size"]
        for number, etag, checksums in listed:
            part = upload.parts.get(number)
            if part is None or part.etag != etag:
                raise S3Error("InvalidPart", fields={"UploadId": upload.id, "PartNumber": number, "ETag": etag})
            if upload.algorithm and upload.algorithm not in checksums:
                raise S3Error("InvalidRequest", "The upload was created using a %s checksum. The complete request must include the "
                              "checksum for each part. It was missing for part %d in the request." % (upload.algorithm, number))
            if checksums and checksums != part.checksums:
                raise S3Error("InvalidPart", fields={"UploadId": upload.id, "PartNumber": number, "ETag": etag})
        sizes = [len(upload.parts[n].data) for n in numbers]
        for (number, etag, _), size in list(zip(listed, sizes))[:-1]:
            if size < minimum:
                raise S3Error("EntityTooSmall", fields={"ETag": etag, "MinSizeAllowed": minimum,
                                                       "ProposedSize": size, "PartNumber": number})
        if self.bucket.equal_parts and (len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]):
            raise S3Error("InvalidPart", "All non-trailing parts must have the same length.")
        size = self.header("x-amz-mp-object-size")
        if size is not None and size != str(sum(sizes)):
            raise S3Error("InvalidRequest", "The provided 'x-amz-mp-object-size' header value %s does not match what was "
                          "computed: %d" % (size, sum(sizes)))
        return sizes

    def _whole_checksum(self, upload, parts):
        """The object's own checksum, {} when none was asked for; checks the one given."""
        given = {n.removeprefix("x-amz-checksum-"): v for n, v in self.request.headers_like("x-amz-checksum-").items()}
        kind = given.pop("type", None)
        if kind is not None and kind != upload.checksum_type:
            raise S3Error("InvalidRequest", "The upload was created using the %s checksum mode. The complete request must use "
                          "the same checksum mode." % (upload.checksum_type or "null"))
        if not upload.algorithm:
            if given:
                raise S3Error("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: null, actual checksum Type: %s"
                              % next(iter(given)))
            return {}
        if upload.checksum_type == "FULL_OBJECT":
            value = _digest(upload.algorithm, [p.data for p in parts])
        else:
            raw = b"".join(base64.b64decode(p.checksums[upload.algorithm]) for p in parts)
            value = "%s-%d" % (_digest(upload.algorithm, [raw]), len(parts))
        for algorithm, wanted in given.items():
            if algorithm != upload.algorithm or wanted.split("-")[0] != value.split("-")[0]:
                raise S3Error("BadDigest", "The %s you specified did not match what we received." % algorithm.upper())
        return {upload.algorithm: value}

    def CompleteMultipartUpload(self):
        upload_id, bucket = self.params["uploadId"], self.bucket
        listed = self._listed_parts()
        with self.world.lock:
            if upload_id in bucket.completed and bucket.completed[upload_id][0] == self.key:
                if upload_id in bucket.forgotten or self.world.config["complete_repeat"] != "ok":
                    raise S3Error("NoSuchUpload", fields={"UploadId": upload_id})
                return self._completed(*bucket.completed[upload_id][1:])
            upload = self._find_upload()
            self._authorise_decrypt(upload)
            sizes = self._check_parts(upload, listed)
            parts = [upload.parts[number] for number, _, _ in listed]
            checksums = self._whole_checksum(upload, parts)
            self._refuse_existing()
            digests = b"".join(hashlib.md5(p.data).digest() for p in parts)
            stored = StoredObject([p.data for p in parts], self._etag(digests, len(parts)), upload.headers,
                                  self.world.now(), checksums, sizes)
            bucket.objects[self.key] = stored
            del bucket.uploads[upload_id]
            bucket.completed[upload_id] = (self.key, stored, upload.checksum_type)
        return self._completed(stored, upload.checksum_type)

    def _completed(self, stored, checksum_type):
        location = "%s://%s/%s" % ("https" if self.request.secure else "http", self.request.host, quote(self.key))
        inner = element("Location", location) + element("Bucket", self.bucket.name) + element("Key", self.key)
        inner += self._etag_xml(stored.etag, complete=True)
        for algorithm, value in stored.checksums.items():
            inner += element("Checksum" + algorithm.upper(), value) + element("ChecksumType", checksum_type)
        response = _xml("CompleteMultipartUploadResult", inner)
        response.headers.update(self._encryption_headers(stored.headers))
        return response

    def AbortMultipartUpload(self):
        with self.world.lock:
            del self.bucket.uploads[self._find_upload().id]
        return Response(204)

    def ListParts(self):
        limit, after = self._number("max-parts", 1000, 1), self._number("part-number-marker", 0, 0)
        with self.world.lock:
            upload = self._find_upload()
            numbers = sorted(n for n in upload.parts if n > after)
        inner = element("Bucket", self.bucket.name) + element("Key", self.key) + element("UploadId", upload.id)
        inner += element("MaxParts", limit) + element("IsTruncated", str(len(numbers) > limit).lower())
        if len(numbers) > limit:
            inner += element("NextPartNumberMarker", numbers[limit - 1])
        for number in numbers[:limit]:
            part = upload.parts[number]
            inner += "<Part>%s%s%s%s</Part>" % (element("PartNumber", number), self._etag_xml(part.etag),
                                                element("LastModified", _iso(part.modified)), element("Size", len(part.data)))
        return _xml("ListPartsResult", inner)
