"""Stand-ins for the places that hand out ambient credentials.

IMDSv2 of an EC2 instance and the container endpoint of ECS and EKS.  What they
hand out are ordinary role sessions, known to the S3 and STS server.
"""
import json
import secrets
from datetime import datetime, timezone

from .errors import ServiceError
from .message import Response

TOKEN_PATH = "/latest/api/token"
ROLE_PATH = "/latest/meta-data/iam/security-credentials/"


def _stamp(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value):
    return Response(200, json.dumps(value), {"Content-Type": "application/json"})


def _session(world, source, session_name):
    """The source's session; a new one when the last is about to end."""
    session = source.get("session")
    if session is None or session.expires - world.now() < source["renew"]:
        session = source["session"] = world.start_session(source["role"], session_name, source["duration"])
    return session


# --- IMDS -----------------------------------------------------------------------

def identify_imds(request):
    if request.path == TOKEN_PATH:
        return "ImdsToken"
    if request.path == ROLE_PATH or request.path == ROLE_PATH[:-1]:
        return "ImdsRole"
    return "ImdsCredentials" if request.path.startswith(ROLE_PATH) else "ImdsOther"


def handle_imds(world, request, operation):
    with world.lock:
        return _imds(world, request, operation)


def _imds(world, request, operation):
    if operation == "ImdsToken":
        ttl = request.header("x-aws-ec2-metadata-token-ttl-seconds") or ""
        if request.method != "PUT":
            raise ServiceError("MethodNotAllowed", "Method Not Allowed", status=405)
        if request.header("x-forwarded-for") is not None:
            raise ServiceError("Forbidden", "Forbidden", status=403)
        if not ttl.isdecimal() or not 1 <= int(ttl) <= 21600:
            raise ServiceError("BadRequest", "Bad Request", status=400)
        token = secrets.token_urlsafe(41) + "=="
        world.imds_tokens[token] = world.now() + int(ttl)
        return Response(200, token, {"Content-Type": "text/plain", "x-aws-ec2-metadata-token-ttl-seconds": ttl})
    if world.imds_tokens.get(request.header("x-aws-ec2-metadata-token"), 0) <= world.now():
        raise ServiceError("Unauthorized", "Unauthorized", status=401)      # no v1
    if request.method != "GET":
        raise ServiceError("MethodNotAllowed", "Method Not Allowed", status=405)
    if request.path == "/latest/meta-data/placement/region":
        return Response(200, world.config["region"], {"Content-Type": "text/plain"})
    source = world.instance
    if source is None or operation == "ImdsOther":
        raise ServiceError("NotFound", "Not Found", status=404)
    if operation == "ImdsRole":
        return Response(200, source["role"].name, {"Content-Type": "text/plain"})
    if request.path != ROLE_PATH + source["role"].name:
        raise ServiceError("NotFound", "Not Found", status=404)
    session = _session(world, source, "i-0123456789abcdef0")
    return _json({"Code": "Success", "LastUpdated": _stamp(world.now()), "Type": "AWS-HMAC",
                  "AccessKeyId": session.access_key_id, "SecretAccessKey": session.secret,
                  "Token": session.token, "Expiration": _stamp(session.expires)})


# --- ECS and EKS ----------------------------------------------------------------

def identify_container(request):
    return "ContainerCredentials"


def handle_container(world, request, operation):
    with world.lock:
        source = world.container
        if source is None or request.method != "GET" or request.path != source["path"]:
            raise ServiceError("NotFound", "Not Found", status=404)
        if source["authorization"] is not None and request.header("authorization") != source["authorization"]:
            raise ServiceError("AccessDeniedException", "Unauthorized", status=401)
        session = _session(world, source, "container")
        return _json({"RoleArn": source["role"].arn, "AccessKeyId": session.access_key_id,
                      "SecretAccessKey": session.secret, "Token": session.token, "Expiration": _stamp(session.expires)})
