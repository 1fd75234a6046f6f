/*-------------------------------------------------------------------------
 *
 * test_refusal_codes.c
 *	  Which codes refuse credentials.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include "aws/refusal_codes.h"
#include "tap.h"

static void
means(RefusingService service, Refusal refusal, const char *code)
{
	ok(refusal_of(service, code) == refusal, "service %d, \"%s\": refusal %d", service, code,
	   refusal);
}

/* Spelt like codes, or codes of what is not a matter of credentials. */
static const char *const no_refusals[] = {
	"",
	" ",
	"Access",
	"accessdenied",
	"AccessDenied ",
	"AccessDenied2",
	"Forbidden",
	"RequestTimeTooSkewed",
	"RequestExpired",
	"AllAccessDisabled",
	"InvalidPayer",
	"AccountProblem",
	"NoSuchBucket",
	"NoSuchKey",
	"NoSuchUpload",
	"InvalidObjectState",
	"QuotaExceeded",
	"KMS.DisabledException",
	"KMS.NotFoundException",
	"KMS.KMSInvalidStateException",
	"AuthorizationHeaderMalformed",
	"MissingAuthenticationToken",
	"InternalError",
	"SlowDown",
	"ServiceUnavailable",
	"Throttling",
	"PreconditionFailed",
	"MethodNotAllowed",
	"ValidationError",
	"InvalidArgument",
	"PackedPolicyTooLarge",
	"MalformedPolicyDocument",
	"IDPCommunicationError",
	"InstanceProfileNotFound",
	"Failed",
	"Success",
};

static void
test_s3(void)
{
	means(REFUSING_S3, REFUSAL_PERMISSION, "AccessDenied");
	means(REFUSING_S3, REFUSAL_KEYS, "InvalidAccessKeyId");
	means(REFUSING_S3, REFUSAL_KEYS, "SignatureDoesNotMatch");
	means(REFUSING_S3, REFUSAL_KEYS, "InvalidSecurity");
	means(REFUSING_S3, REFUSAL_KEYS, "Unauthorized");
	means(REFUSING_S3, REFUSAL_KEYS, "AuthenticationRequired");
	means(REFUSING_S3, REFUSAL_EXPIRED, "ExpiredToken");
	means(REFUSING_S3, REFUSAL_EXPIRED, "ExpiredTokenException");
	means(REFUSING_S3, REFUSAL_EXPIRED, "TokenRefreshRequired");
	means(REFUSING_S3, REFUSAL_KEYS, "InvalidToken");
	means(REFUSING_S3, REFUSAL_KEYS, "InvalidTokenId");
	means(REFUSING_S3, REFUSAL_KEYS, "NotSignedUp");
	means(REFUSING_S3, REFUSAL_KEYS, "UserSuspended");
}

static void
test_sts(void)
{
	means(REFUSING_STS, REFUSAL_PERMISSION, "AccessDenied");
	means(REFUSING_STS, REFUSAL_KEYS, "InvalidClientTokenId");
	means(REFUSING_STS, REFUSAL_KEYS, "InvalidAccessKeyId");
	means(REFUSING_STS, REFUSAL_KEYS, "SignatureDoesNotMatch");
	means(REFUSING_STS, REFUSAL_EXPIRED, "ExpiredToken");
	means(REFUSING_STS, REFUSAL_EXPIRED, "ExpiredTokenException");
	means(REFUSING_STS, REFUSAL_KEYS, "OptInRequired");
	means(REFUSING_STS, REFUSAL_KEYS, "UserSuspended");
	means(REFUSING_STS, REFUSAL_PERMISSION, "RegionDisabledException");
	means(REFUSING_STS, REFUSAL_PERMISSION, "NoSuchEntity");
	means(REFUSING_STS, REFUSAL_KEYS, "IDPRejectedClaim");
	means(REFUSING_STS, REFUSAL_KEYS, "InvalidIdentityToken");
}

/* A code of one service means nothing in the answers of another. */
static void
test_others(void)
{
	means(REFUSING_INSTANCE, REFUSAL_PERMISSION, "AssumeRoleUnauthorizedAccess");
	means(REFUSING_INSTANCE, REFUSAL_NONE, "AccessDenied");
	means(REFUSING_S3, REFUSAL_NONE, "AssumeRoleUnauthorizedAccess");
	means(REFUSING_S3, REFUSAL_NONE, "NoSuchEntity");
	means(REFUSING_S3, REFUSAL_NONE, "InvalidClientTokenId");
	means(REFUSING_STS, REFUSAL_NONE, "Unauthorized");
	means(REFUSING_STS, REFUSAL_NONE, "InvalidToken");
}

int
main(void)
{
	test_s3();
	test_sts();
	test_others();
	for (size_t i = 0; i < lengthof(no_refusals); i++)
	{
		means(REFUSING_S3, REFUSAL_NONE, no_refusals[i]);
		means(REFUSING_STS, REFUSAL_NONE, no_refusals[i]);
		means(REFUSING_INSTANCE, REFUSAL_NONE, no_refusals[i]);
	}
	return done_testing();
}
