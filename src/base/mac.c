/*-------------------------------------------------------------------------
 *
 * mac.c
 *	  Message authentication codes under the key in s3export.key_file.
 *
 * A code is
 *
 *	  version (1) | key id (4) | HMAC-SHA256 (32)
 *
 * The key of the HMAC is derived from the key that seals secrets, so that the two
 * have no key in common.  The key id tells a key file that was replaced from a
 * message that was changed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/compat.h"
#include "base/mac.h"
#include "base/secret.h"

#define MAC_VERSION 1
#define KEY_ID_LEN 4
#define PREFIX_LEN (1 + KEY_ID_LEN)
#define DIGEST_LEN 32
#define MAC_LEN (PREFIX_LEN + DIGEST_LEN)

static bool
hmac_sha256(const unsigned char *key, size_t key_len, const void *data, size_t len,
			unsigned char *digest)
{
	return HMAC(EVP_sha256(), key, (int) key_len, data, len, digest, NULL) != NULL;
}

static void
compute_mac(const bytea *message, bool make_key, const bytea *stored, unsigned char *mac)
{
	static const char purpose[] = "s3export message authentication";
	unsigned char     key[SECRET_KEY_LEN];
	unsigned char     digest[EVP_MAX_MD_SIZE];
	bool              ok;

	secret_read_key(make_key, stored, key);
	mac[0] = MAC_VERSION;
	ok = EVP_Digest(key, SECRET_KEY_LEN, digest, NULL, EVP_sha256(), NULL) == 1;
	memcpy(mac + 1, digest, KEY_ID_LEN);
	ok = ok && hmac_sha256(key, SECRET_KEY_LEN, purpose, strlen(purpose), digest) &&
		 hmac_sha256(digest, DIGEST_LEN, VARDATA_ANY(message), VARSIZE_ANY_EXHDR(message),
					 mac + PREFIX_LEN);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(digest, sizeof(digest));
	if (!ok)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute an HMAC")));
}

bytea *
mac_make(const bytea *message, const bytea *stored)
{
	bytea *mac = palloc(VARHDRSZ + MAC_LEN);

	SET_VARSIZE(mac, VARHDRSZ + MAC_LEN);
	compute_mac(message, true, stored, (unsigned char *) VARDATA(mac));
	return mac;
}

MacVerdict
mac_check(const bytea *message, const bytea *mac, bool missing_ok)
{
	unsigned char        right[MAC_LEN];
	const unsigned char *given;

	if (mac == NULL || VARSIZE_ANY_EXHDR(mac) != MAC_LEN)
		return MAC_WRONG;
	if (missing_ok && !secret_has_key())
		return MAC_OF_OTHER_KEY;
	compute_mac(message, false, mac, right);
	given = (const unsigned char *) VARDATA_ANY(mac);
	if (memcmp(given, right, PREFIX_LEN) != 0)
		return MAC_OF_OTHER_KEY;
	return CRYPTO_memcmp(given, right, MAC_LEN) == 0 ? MAC_RIGHT : MAC_WRONG;
}

const char *
mac_key_name(const bytea *mac)
{
	return secret_key_name((const unsigned char *) VARDATA_ANY(mac));
}
