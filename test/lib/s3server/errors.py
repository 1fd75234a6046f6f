"""The errors of S3 and STS: status, code and text as AWS gives them."""
from xml.sax.saxutils import escape

S3_ERRORS = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AccessDenied": (403, "Access Denied"),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BucketAlreadyExists": (409, "The requested bucket name is not available."),
    "ConditionalRequestConflict": (409, "The conditional request cannot succeed due to a conflicting operation against this resource."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "ExpiredToken": (400, "The provided token has expired."),
    "IllegalLocationConstraintException": (400, "The specified location-constraint is incompatible for the region specific endpoint this request was sent to."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidEncryptionAlgorithmError": (400, "The encryption request you specified is not valid. Supported value: AES256."),
    "InvalidPart": (400, "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order. Parts must be ordered by part number."),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KMS.DisabledException": (400, "The request was rejected because the specified KMS key is not enabled."),
    "KMS.NotFoundException": (400, "Invalid arn"),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our published schema"),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size"),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (404, "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented"),
    "OperationAborted": (409, "A conflicting conditional operation is currently in progress against this resource. Please try again."),
    "PermanentRedirect": (301, "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SignatureDoesNotMatch": (403, "The request signature we calculated does not match the signature you provided. Check your key and signing method."),
    "SlowDown": (503, "Please reduce your request rate."),
    "TemporaryRedirect": (307, "Please re-send this request to the specified temporary endpoint. Continue to use the original request endpoint for future requests."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}

STS_ERRORS = {
    "AccessDenied": (403, "Access Denied"),
    "ExpiredToken": (403, "The security token included in the request is expired"),
    "ExpiredTokenException": (400, "Token expired: current date/time must be before the expiration date/time"),
    "IDPCommunicationError": (400, "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements"),
    "IDPRejectedClaim": (403, "The identity provider reported that authentication failed."),
    "IncompleteSignature": (400, "Authorization header requires 'Credential' parameter."),
    "InternalFailure": (500, "The request processing has failed because of an unknown error, exception or failure."),
    "InvalidAction": (400, "Could not find operation for version 2011-06-15"),
    "InvalidClientTokenId": (403, "The security token included in the request is invalid."),
    "InvalidIdentityToken": (400, "Couldn't validate the web identity token"),
    "MalformedPolicyDocument": (400, "Syntax errors in policy."),
    "MissingAuthenticationToken": (403, "Request is missing Authentication Token"),
    "MissingAction": (400, "Missing Action"),
    "PackedPolicyTooLarge": (400, "Packed policy consumes 110% of allotted space, please use smaller policy."),
    "RegionDisabledException": (403, "STS is not activated in this region for account. Your account administrator can activate STS in this region using the IAM Console."),
    "ServiceUnavailable": (503, "Service Unavailable"),
    "SignatureDoesNotMatch": (403, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."),
    "Throttling": (400, "Rate exceeded"),
    "ValidationError": (400, "1 validation error detected"),
}


class ServiceError(Exception):
    """An answer that is an error; fields are further (name, text) pairs of the body."""

    def __init__(self, code, message=None, fields=(), headers=(), status=None, service=None):
        known = {"s3": S3_ERRORS, "sts": STS_ERRORS}.get(service) or {**STS_ERRORS, **S3_ERRORS}
        default_status, default_message = known.get(code, (400, code))
        super().__init__(code)
        self.code = code
        self.status = status or default_status
        self.message = default_message if message is None else message
        self.fields = list(fields.items() if isinstance(fields, dict) else fields)
        self.headers = dict(headers)


class StsError(ServiceError):
    def __init__(self, code, message=None, **more):
        super().__init__(code, message, service="sts", **more)


class S3Error(ServiceError):
    def __init__(self, code, message=None, **more):
        super().__init__(code, message, service="s3", **more)


def element(name, text):
    return "<%s>%s</%s>" % (name, escape(str(text)), name)


def s3_error_body(error, resource, request_id, host_id):
    fields = [("Code", error.code), ("Message", error.message)] + error.fields
    if resource is not None:
        fields.append(("Resource", resource))
    fields += [("RequestId", request_id), ("HostId", host_id)]
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<Error>%s</Error>'
            % "".join(element(*field) for field in fields)).encode()


def sts_error_body(error, request_id):
    kind = "Sender" if error.status < 500 else "Receiver"
    return ('<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">\n'
            "  <Error>\n    %s\n    %s\n    %s\n  </Error>\n  %s\n</ErrorResponse>\n"
            % (element("Type", kind), element("Code", error.code),
               element("Message", error.message), element("RequestId", request_id))).encode()
