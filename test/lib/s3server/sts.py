"""The STS actions: AssumeRole, AssumeRoleWithWebIdentity, GetCallerIdentity."""
import hashlib
import json
import re
from datetime import datetime, timedelta, timezone

from . import policy, signature
from .errors import StsError, element
from .message import Response, parse_query
from .state import allowed

XMLNS = "https://sts.amazonaws.com/doc/2011-06-15/"
ACTIONS = ("AssumeRole", "AssumeRoleWithWebIdentity", "GetCallerIdentity")


def identify(request):
    return request.form.get("Action") if request.form.get("Action") in ACTIONS else "Unknown"


def read_form(request):
    request.form = dict(parse_query(bytes(request.body).decode("latin-1")) or request.query)


def handle(world, request, operation):
    if "Action" not in request.form:
        raise StsError("MissingAction")
    if operation == "Unknown" or request.form.get("Version") != "2011-06-15":
        raise StsError("InvalidAction", "Could not find operation %s for version %s"
                       % (request.form["Action"], request.form.get("Version", "NO_VERSION_SPECIFIED")))
    if operation != "AssumeRoleWithWebIdentity":
        _authenticate(world, request)
    with world.lock:
        return {"AssumeRole": _assume_role, "GetCallerIdentity": _caller_identity,
                "AssumeRoleWithWebIdentity": _assume_role_with_web_identity}[operation](world, request)


def _answer(action, inner, request):
    return Response(200, '<%sResponse xmlns="%s">\n  <%sResult>\n%s  </%sResult>\n  <ResponseMetadata>%s</ResponseMetadata>\n</%sResponse>\n'
                    % (action, XMLNS, action, inner, action, element("RequestId", request.id), action),
                    {"Content-Type": "text/xml"})


# --- who calls ------------------------------------------------------------------

def _authenticate(world, request):
    authorization = request.header("authorization")
    if authorization is None:
        raise StsError("MissingAuthenticationToken")
    request.signature = "not checked"
    try:
        signed = request.signed = signature.parse(authorization)
    except signature.Malformed as reason:
        raise StsError("IncompleteSignature", "Authorization header requires '%s' parameter." % reason)
    identity = world.find_key(signed.access_key_id)
    token = request.header("x-amz-security-token")
    if identity is None or token != identity.token:
        raise StsError("InvalidClientTokenId")
    request.identity = identity
    if identity.expires is not None and identity.expires <= world.now():
        raise StsError("ExpiredToken")
    _check_time(world, request, signed)
    region = request.endpoint_region or world.config["region"]
    if signed.service != "sts":
        raise StsError("SignatureDoesNotMatch", "Credential should be scoped to correct service: 'sts'. ")
    if signed.region != region:
        raise StsError("SignatureDoesNotMatch", "Credential should be scoped to a valid region. ")
    if region in world.config["sts_disabled_regions"]:
        raise StsError("RegionDisabledException", "STS is not activated in this region for account:%s. Your account "
                       "administrator can activate STS in this region using the IAM Console." % identity.account)
    names = ["host"] + sorted(request.headers_like("x-amz-"))
    missing = [n for n in names if n not in signed.signed_headers]
    payload = request.header("x-amz-content-sha256")
    right, canonical, to_sign = signature.verify(request, signed, identity.secret)
    if payload is not None and payload != hashlib.sha256(request.body).hexdigest():
        right = False
    request.signature = "valid" if right and not missing else "invalid"
    if request.signature != "valid":
        raise StsError("SignatureDoesNotMatch", StsError("SignatureDoesNotMatch").message +
                       "\n\nThe Canonical String for this request should have been\n'%s'\n\nThe String-to-Sign should have "
                       "been\n'%s'\n" % (canonical, to_sign))
    request.payload = "signed"


def _stamp(moment):
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _check_time(world, request, signed):
    try:
        requested = datetime.strptime(request.header("x-amz-date") or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise StsError("IncompleteSignature", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if signed.date != requested.strftime("%Y%m%d"):
        raise StsError("SignatureDoesNotMatch", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s'"
                       % (signed.date, requested.strftime("%Y%m%d")))
    now, skew = datetime.fromtimestamp(world.now(), timezone.utc), timedelta(seconds=world.config["max_skew"])
    minutes = skew.total_seconds() // 60
    if requested < now - skew:
        raise StsError("SignatureDoesNotMatch", "Signature expired: %s is now earlier than %s (%s - %d min.)"
                       % (_stamp(requested), _stamp(now - skew), _stamp(now), minutes))
    if requested > now + skew:
        raise StsError("SignatureDoesNotMatch", "Signature not yet current: %s is still later than %s (%s + %d min.)"
                       % (_stamp(requested), _stamp(now + skew), _stamp(now), minutes))


# --- arguments ------------------------------------------------------------------

def _invalid(name, value, constraint):
    return StsError("ValidationError", "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must %s"
                    % (value, name, constraint))


def _text_argument(form, name, shortest, longest, pattern, required=True):
    value = form.get(name)
    shown = name[0].lower() + name[1:]
    if value is None:
        if required:
            raise StsError("ValidationError", "1 validation error detected: Value null at '%s' failed to satisfy constraint: "
                           "Member must not be null" % shown)
        return None
    if len(value) < shortest:
        raise _invalid(shown, value, "have length greater than or equal to %d" % shortest)
    if len(value) > longest:
        raise _invalid(shown, value, "have length less than or equal to %d" % longest)
    if not re.fullmatch(pattern, value, re.ASCII):
        raise _invalid(shown, value, "satisfy regular expression pattern: " + pattern)
    return value


def _duration(world, form, role, chained):
    text = form.get("DurationSeconds", "3600")
    if not re.fullmatch("[0-9]+", text):
        raise StsError("ValidationError", "1 validation error detected: Value '%s' at 'durationSeconds' is not an integer" % text)
    seconds = int(text)
    if seconds < world.config["min_duration"]:
        raise _invalid("durationSeconds", text, "have value greater than or equal to %d" % world.config["min_duration"])
    if seconds > 43200:
        raise _invalid("durationSeconds", text, "have value less than or equal to 43200")
    if role and chained and seconds > 3600:
        raise StsError("ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
    if role and "DurationSeconds" in form and seconds > role.max_session_duration:
        raise StsError("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    return min(seconds, world.config["longest_session"] or seconds)


def _session_policy(form):
    text = form.get("Policy")
    if text is None:
        return None
    if len(text) > 2048:
        raise _invalid("policy", text, "have length less than or equal to 2048")
    try:
        document = json.loads(text)
        policy.check(document)
    except ValueError as reason:
        raise StsError("MalformedPolicyDocument", "Syntax errors in policy. (%s)" % reason)
    return document


def _role_arguments(world, form):
    arn = _text_argument(form, "RoleArn", 20, 2048, r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD]+")
    if not re.fullmatch(r"arn:aws[a-z-]*:iam::\d{12}:role/.+", arn):
        raise StsError("ValidationError", "%s is invalid" % arn)
    session_name = _text_argument(form, "RoleSessionName", 2, 64, r"[\w+=,.@-]*")
    role = world.roles.get(arn)
    if role is not None and role.known_at > world.now():
        role = None
    return arn, session_name, role


# --- actions --------------------------------------------------------------------

def _expiration(world, identity):
    moment = datetime.fromtimestamp(identity.expires, timezone.utc)
    fraction = {"millis": ".%03d" % (moment.microsecond // 1000), "nanos": ".%06d123" % moment.microsecond}
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction.get(world.config["expiration_format"], "") + "Z"


def _session_xml(world, identity):
    return ("    <AssumedRoleUser>%s%s</AssumedRoleUser>\n    <Credentials>\n      %s\n      %s\n      %s\n      %s\n    </Credentials>\n"
            % (element("AssumedRoleId", identity.user_id), element("Arn", identity.arn),
               element("AccessKeyId", identity.access_key_id), element("SecretAccessKey", identity.secret),
               element("SessionToken", identity.token), element("Expiration", _expiration(world, identity))))


def _principals(identity):
    exact = {("AWS", identity.arn)}
    if identity.role:
        exact.add(("AWS", identity.role.arn))
    return {"exact": exact, "account": {("AWS", identity.account), ("AWS", "arn:aws:iam::%s:root" % identity.account)}}


def _may_assume(caller, role, external_id):
    """A trust policy that names the caller itself suffices within an account;
    otherwise the caller's own policy has to allow it too."""
    if role is None:
        return False
    context = {"aws:PrincipalArn": caller.role.arn if caller.role else caller.arn, "aws:PrincipalAccount": caller.account}
    if external_id is not None:
        context["sts:ExternalId"] = external_id
    how = policy.trusts(role.trust, "sts:AssumeRole", _principals(caller), context)
    if how is None:
        return False
    why = allowed(caller, "sts:AssumeRole", role.arn, {})
    return why is None or (how == "exact" and caller.account == role.account and "explicit deny" not in why)


def _assume_role(world, request):
    form, caller = request.form, request.identity
    external_id = _text_argument(form, "ExternalId", 2, 1224, r"[\w+=,.@:\/-]*", required=False)
    arn, session_name, role = _role_arguments(world, form)
    seconds = _duration(world, form, None, False)
    session_policy = _session_policy(form)
    if not _may_assume(caller, role, external_id):
        raise StsError("AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s" % (caller.arn, arn))
    seconds = _duration(world, form, role, caller.role is not None)
    return _answer("AssumeRole", _session_xml(world, world.start_session(role, session_name, seconds, session_policy)), request)


def _assume_role_with_web_identity(world, request):
    form = request.form
    arn, session_name, role = _role_arguments(world, form)
    token = _text_argument(form, "WebIdentityToken", 4, 20000, r"[\s\S]*")
    seconds = _duration(world, form, None, False)
    session_policy = _session_policy(form)
    claims = world.web_tokens.get(token)
    if claims is None:
        raise StsError("InvalidIdentityToken", "Couldn't validate the web identity token")
    if claims["expires"] is not None and claims["expires"] <= world.now():
        raise StsError("ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d"
                       % (world.now(), claims["expires"]))
    context = {claims["issuer"] + ":" + name: claims[name] for name in ("aud", "sub")}
    if role is not None:
        provider = "arn:aws:iam::%s:oidc-provider/%s" % (role.account, claims["issuer"])
        principals = {"exact": {("Federated", provider)}, "account": set()}
    if role is None or not policy.trusts(role.trust, "sts:AssumeRoleWithWebIdentity", principals, context):
        raise StsError("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
    seconds = _duration(world, form, role, False)
    inner = _session_xml(world, world.start_session(role, session_name, seconds, session_policy))
    inner += "    %s\n    %s\n" % (element("SubjectFromWebIdentityToken", claims["sub"]), element("Audience", claims["aud"]))
    return _answer("AssumeRoleWithWebIdentity", inner, request)


def _caller_identity(world, request):
    identity = request.identity
    inner = "    %s\n    %s\n    %s\n" % (element("Arn", identity.arn), element("UserId", identity.user_id),
                                          element("Account", identity.account))
    return _answer("GetCallerIdentity", inner, request)
