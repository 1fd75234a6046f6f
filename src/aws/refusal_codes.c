/*-------------------------------------------------------------------------
 *
 * refusal_codes.c
 *	  The codes with which services refuse credentials.
 *
 * Listed is what is said of who asks: of the key, its secret, its token, its
 * owner, and of what they may do.  Other keys or another policy mend it, and
 * nothing else does.
 *
 * Not listed is what passes by itself, or what no key and no policy mend:
 * clocks that differ (RequestTimeTooSkewed, RequestExpired), a bucket or an
 * account that the provider has closed (AllAccessDisabled, InvalidPayer,
 * AccountProblem), the state of a bucket, an object or a KMS key (NoSuchBucket,
 * InvalidObjectState, KMS.DisabledException), quotas, regions, and requests that
 * STS finds malformed (ValidationError, PackedPolicyTooLarge), which may be our
 * fault.
 *
 * https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 * https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_iam-ec2.html
 *
 *-------------------------------------------------------------------------
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "aws/refusal_codes.h"

#define S3_AND_STS (REFUSING_S3 | REFUSING_STS)

static const struct
{
	const char *code;
	int         services;
	Refusal     refusal;
} refusals[] = {
	/* policies of users, roles, buckets, KMS keys; trust policies; the capabilities of B2's keys */
	{"AccessDenied", S3_AND_STS, REFUSAL_PERMISSION},

	/* a key that is unknown, deleted or disabled: S3 and its like; AWS's STS */
	{"InvalidAccessKeyId", S3_AND_STS, REFUSAL_KEYS},
	{"InvalidClientTokenId", REFUSING_STS, REFUSAL_KEYS},
	/* a wrong secret; sts.c knows when it is the clock */
	{"SignatureDoesNotMatch", S3_AND_STS, REFUSAL_KEYS},
	/* either of the two: S3 and GCS; R2, with status 401; GCS, with status 401 */
	{"InvalidSecurity", REFUSING_S3, REFUSAL_KEYS},
	{"Unauthorized", REFUSING_S3, REFUSAL_KEYS},
	{"AuthenticationRequired", REFUSING_S3, REFUSAL_KEYS},

	/* a session that is over; a token of web identity that is */
	{"ExpiredToken", S3_AND_STS, REFUSAL_EXPIRED},
	{"ExpiredTokenException", S3_AND_STS, REFUSAL_EXPIRED},
	{"TokenRefreshRequired", REFUSING_S3, REFUSAL_EXPIRED},
	/* a token that does not belong to the key: S3; MinIO */
	{"InvalidToken", REFUSING_S3, REFUSAL_KEYS},
	{"InvalidTokenId", REFUSING_S3, REFUSAL_KEYS},

	/* the account of the key has no S3; its user is suspended, which is Ceph's */
	{"NotSignedUp", REFUSING_S3, REFUSAL_KEYS},
	{"OptInRequired", REFUSING_STS, REFUSAL_KEYS},
	{"UserSuspended", S3_AND_STS, REFUSAL_KEYS},

	/* an administrator has switched off STS in this region */
	{"RegionDisabledException", REFUSING_STS, REFUSAL_PERMISSION},
	/* there is no such role, of which AWS says AccessDenied and Ceph this */
	{"NoSuchEntity", REFUSING_STS, REFUSAL_PERMISSION},
	/* a token of web identity that is revoked, or of another audience */
	{"IDPRejectedClaim", REFUSING_STS, REFUSAL_KEYS},
	{"InvalidIdentityToken", REFUSING_STS, REFUSAL_KEYS},

	/* the trust policy of the instance's role does not name EC2 */
	{"AssumeRoleUnauthorizedAccess", REFUSING_INSTANCE, REFUSAL_PERMISSION},
};

Refusal
refusal_of(RefusingService service, const char *code)
{
	for (size_t i = 0; i < lengthof(refusals); i++)
	{
		if ((refusals[i].services & service) != 0 && strcmp(refusals[i].code, code) == 0)
			return refusals[i].refusal;
	}
	return REFUSAL_NONE;
}
