"""Who signed an S3 request, and whether it was signed right."""
import hashlib
import re
from datetime import datetime, timezone

from . import signature
from .errors import S3Error


def _time(text):
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _malformed(detail, **more):
    return S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed; " + detail, **more)


def _parse(request):
    authorization = request.header("authorization")
    if authorization is None:
        if "X-Amz-Signature" in request.params:
            raise S3Error("NotImplemented", "Presigned URLs are not implemented here")
        raise S3Error("AccessDenied")
    try:
        return signature.parse(authorization)
    except signature.Malformed as reason:
        if str(reason) == "mechanism":
            raise S3Error("InvalidRequest", "The authorization mechanism you have provided is not supported. "
                          "Please use AWS4-HMAC-SHA256.")
        raise _malformed("the %s field is missing or wrong." % reason)


def _check_time(world, request, signed):
    date = request.header("x-amz-date")
    try:
        requested = _time(date or "")
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    if signed.date != date[:8]:
        raise _malformed('Invalid credential date "%s". This date is not the same as X-Amz-Date: "%s".'
                         % (signed.date, date[:8]))
    now = world.now()
    if abs(now - requested) > world.config["max_skew"]:
        server = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise S3Error("RequestTimeTooSkewed", fields={
            "RequestTime": date, "ServerTime": server,
            "MaxAllowedSkewMilliseconds": int(world.config["max_skew"] * 1000)})


def _check_token(world, identity, token):
    if identity.token is None:
        if token is not None:
            raise S3Error("InvalidToken", fields={"Token-0": token})
    elif token is None:
        raise S3Error("InvalidAccessKeyId", fields={"AWSAccessKeyId": identity.access_key_id})
    elif token != identity.token:
        raise S3Error("InvalidToken", fields={"Token-0": token})
    elif identity.expires <= world.now():
        raise S3Error("ExpiredToken", fields={"Token-0": token})


def _check_headers(request, signed):
    payload = request.header("x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if payload.startswith("STREAMING-") or "aws-chunked" in (request.header("content-encoding") or ""):
        raise S3Error("NotImplemented", fields={"Header": "x-amz-content-sha256"})
    if payload != "UNSIGNED-PAYLOAD" and not re.fullmatch("[0-9a-f]{64}", payload):
        raise S3Error("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, "
                      "STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD or a valid sha256 value.",
                      fields={"ArgumentName": "x-amz-content-sha256", "ArgumentValue": payload})
    must = ["host", "content-md5"] if request.header("content-md5") is not None else ["host"]
    unsigned = [n for n in must + sorted(request.headers_like("x-amz-")) if n not in signed.signed_headers]
    if unsigned:
        raise S3Error("AccessDenied", "There were headers present in the request which were not signed",
                      fields={"HeadersNotSigned": ", ".join(unsigned)})
    return payload


def _hexadecimal(text):
    return " ".join("%02x" % byte for byte in text.encode())


def authenticate(world, request):
    """Sets request.identity, or raises what S3 would say."""
    request.signature = "missing" if request.header("authorization") is None else "not checked"
    signed = request.signed = _parse(request)
    if signed.service != "s3":
        raise _malformed('incorrect service "%s". This endpoint belongs to "s3".' % signed.service)
    identity = world.find_key(signed.access_key_id)
    if identity is None:
        raise S3Error("InvalidAccessKeyId", fields={"AWSAccessKeyId": signed.access_key_id})
    request.identity = identity
    _check_time(world, request, signed)
    _check_token(world, identity, request.header("x-amz-security-token"))
    payload = _check_headers(request, signed)
    right, canonical, to_sign = signature.verify(request, signed, identity.secret)
    request.signature = "valid" if right else "invalid"
    if not right:
        raise S3Error("SignatureDoesNotMatch", fields={
            "AWSAccessKeyId": signed.access_key_id, "StringToSign": to_sign,
            "SignatureProvided": signed.signature, "StringToSignBytes": _hexadecimal(to_sign),
            "CanonicalRequest": canonical, "CanonicalRequestBytes": _hexadecimal(canonical)})
    request.payload = "unsigned" if payload == "UNSIGNED-PAYLOAD" else "signed"
    if request.payload == "signed":
        actual = hashlib.sha256(request.body).hexdigest()
        if actual != payload:
            raise S3Error("XAmzContentSHA256Mismatch", fields={
                "ClientComputedContentSHA256": payload, "S3ComputedContentSHA256": actual})
