#!/usr/bin/python3
"""A small S3, STS and IAM client for the tests, on Debian's python3-botocore.

usage: s3.py mb | check | ls [PREFIX] | head KEY | get KEY [FILE] | getall PREFIX | put KEY FILE
       s3.py rm KEY... | clear [PREFIX] | uploads [PREFIX]
       s3.py assume ARN [SECONDS]
       s3.py allow-user USER ACTION... | make-role ROLE PRINCIPAL ACTION...

Where and as whom: S3EXPORT_TEST_ENDPOINT, _REGION, _BUCKET, _ACCESS_KEY_ID,
_SECRET_ACCESS_KEY, _SESSION_TOKEN, _CA_FILE.  Nothing secret is an argument.

check sends an object, fetches and deletes it.  ls prints "size<TAB>etag<TAB>key", uploads "upload id<TAB>key", head and assume
JSON; getall "size<TAB>key", a line end and the bytes of each object.  ACTION is like s3:PutObject; it is allowed on the bucket and all in it.
Exit status: 0; 1 when S3 refused (its code and message on stderr); 2 usage.
"""
import json
import os
import shutil
import sys

import botocore.config
import botocore.exceptions
import botocore.session


def setting(name, default=None):
    value = os.environ.get("S3EXPORT_TEST_" + name, default)
    if value is None:
        sys.exit("s3.py: S3EXPORT_TEST_%s is not set" % name)
    return value


def client(service):
    options = {"s3": {"addressing_style": "path"}, "connect_timeout": 10, "read_timeout": 60,
               "retries": {"max_attempts": 1},
               # The server is to judge, be it of a session of five seconds.
               "parameter_validation": False}
    try:
        # From 1.36 on botocore adds checksums that not every store knows.
        config = botocore.config.Config(request_checksum_calculation="when_required", **options)
    except TypeError:
        config = botocore.config.Config(**options)
    return botocore.session.get_session().create_client(
        service, region_name=setting("REGION", "us-east-1"), endpoint_url=setting("ENDPOINT"),
        aws_access_key_id=setting("ACCESS_KEY_ID"),
        aws_secret_access_key=setting("SECRET_ACCESS_KEY"),
        aws_session_token=os.environ.get("S3EXPORT_TEST_SESSION_TOKEN") or None,
        verify=os.environ.get("S3EXPORT_TEST_CA_FILE") or None, config=config)


def objects(s3, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=setting("BUCKET"), Prefix=prefix)
    return [entry for page in pages for entry in page.get("Contents", [])]


def uploads(s3, prefix):
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=setting("BUCKET"),
                                                               Prefix=prefix)
    return [entry for page in pages for entry in page.get("Uploads") or []]


def document(**statement):
    # Without blanks: botocore sends them as "+", which Ceph 16 does not decode.
    return json.dumps({"Version": "2012-10-17", "Statement": [dict(statement, Effect="Allow")]},
                      separators=(",", ":"))


def policy(actions):
    arn = "arn:aws:s3:::" + setting("BUCKET")
    return document(Action=list(actions), Resource=[arn, arn + "/*"])


def trust(principal):
    return document(Action=["sts:AssumeRole"], Principal={"AWS": [principal]})


def do_mb():
    client("s3").create_bucket(Bucket=setting("BUCKET"))


def do_check():
    s3 = client("s3")
    bucket, key, data = setting("BUCKET"), "s3.py/check", os.urandom(4096)
    s3.put_object(Bucket=bucket, Key=key, Body=data)
    same = s3.get_object(Bucket=bucket, Key=key)["Body"].read() == data
    s3.delete_object(Bucket=bucket, Key=key)
    if not same:
        sys.exit("s3.py: an object did not come back as it was sent")


def do_ls(prefix=""):
    for entry in objects(client("s3"), prefix):
        print("%d\t%s\t%s" % (entry["Size"], entry["ETag"].strip('"'), entry["Key"]))


def do_head(key):
    answer = client("s3").head_object(Bucket=setting("BUCKET"), Key=key)
    print(json.dumps(answer["ResponseMetadata"]["HTTPHeaders"], sort_keys=True))


def do_get(key, path=None):
    body = client("s3").get_object(Bucket=setting("BUCKET"), Key=key)["Body"]
    if path is None:
        shutil.copyfileobj(body, sys.stdout.buffer)
    else:
        with open(path, "wb") as out:
            shutil.copyfileobj(body, out)


def do_getall(prefix):
    s3 = client("s3")
    for entry in objects(s3, prefix):
        body = s3.get_object(Bucket=setting("BUCKET"), Key=entry["Key"])["Body"].read()
        sys.stdout.buffer.write(b"%d\t%s\n" % (len(body), entry["Key"].encode()) + body)


def do_put(key, path):
    with open(path, "rb") as data:
        client("s3").put_object(Bucket=setting("BUCKET"), Key=key, Body=data)


def do_rm(*keys):
    s3 = client("s3")
    for key in keys:
        s3.delete_object(Bucket=setting("BUCKET"), Key=key)


def do_clear(prefix=""):
    s3 = client("s3")
    for entry in uploads(s3, prefix):
        s3.abort_multipart_upload(Bucket=setting("BUCKET"), Key=entry["Key"],
                                  UploadId=entry["UploadId"])
    for entry in objects(s3, prefix):
        s3.delete_object(Bucket=setting("BUCKET"), Key=entry["Key"])


def do_uploads(prefix=""):
    for entry in uploads(client("s3"), prefix):
        print("%s\t%s" % (entry["UploadId"], entry["Key"]))


def do_assume(arn, seconds="900"):
    answer = client("sts").assume_role(RoleArn=arn, RoleSessionName="tests",
                                       DurationSeconds=int(seconds))
    print(json.dumps(answer["Credentials"], default=str, sort_keys=True))


def do_allow_user(user, *actions):
    client("iam").put_user_policy(UserName=user, PolicyName="tests",
                                  PolicyDocument=policy(actions))


def do_make_role(role, principal, *actions):
    iam = client("iam")
    answer = iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust(principal))
    iam.put_role_policy(RoleName=role, PolicyName="tests", PolicyDocument=policy(actions))
    print(answer["Role"]["Arn"])


def main():
    command = globals().get("do_" + sys.argv[1].replace("-", "_")) if len(sys.argv) > 1 else None
    if command is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        command(*sys.argv[2:])
    except TypeError as error:
        if command.__name__ not in str(error):
            raise
        print(__doc__, file=sys.stderr)
        return 2
    except botocore.exceptions.ClientError as error:
        details = error.response.get("Error", {})
        print("s3.py: %s: %s" % (details.get("Code"), details.get("Message")), file=sys.stderr)
        return 1
    except botocore.exceptions.BotoCoreError as error:
        print("s3.py: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
