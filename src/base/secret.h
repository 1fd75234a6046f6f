/*-------------------------------------------------------------------------
 *
 * secret.h
 *	  Sealed secrets: AES-256-GCM under the key in s3export.key_file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SECRET_H
#define SECRET_H

/*
 * A sealed secret is bound to a credential's id, so that a blob moved to
 * another row does not open.  "stored" is any secret that is stored already, not
 * toasted; NULL: there is none.  Without one, sealing makes the key file (mode
 * 0600) when the default one does not exist yet, but not on a standby: a new key
 * beside secrets that need the old one would have to be replaced, and take its own
 * secrets along.  Sealing and opening raise errors that say which file is at fault,
 * what sha256sum says of the right one, and never what was in it.
 */
extern bytea *
secret_seal(const char *secret, const char *token, int64 credential_id, const bytea *stored);

typedef struct Secret
{
	char *secret;
	char *token; /* NULL: none */
} Secret;

/*
 * "sealed" must not be toasted.  The result lives in a memory context of its own
 * below "parent" and is overwritten when "parent" is reset or deleted, whichever
 * way.
 */
extern Secret *secret_open(MemoryContext parent, const bytea *sealed, int64 credential_id);

#define SECRET_KEY_LEN 32

/*
 * The key itself, for codes that are made with it; SECRET_KEY_LEN bytes, which the caller
 * wipes.  "make" and "stored": makes the file as sealing does.
 */
extern void secret_read_key(bool make, const bytea *stored, unsigned char *key);

/* What "sha256sum" of the key file begins with: "prefix" has a version, and the key's id. */
extern const char *secret_key_name(const unsigned char *prefix);

/* Raises an error when there is no key file, which says which one "stored" needs. */
extern void secret_require_key(const bytea *stored);

/* Is there a key file? */
extern bool secret_has_key(void);

/* A copy in "context" that is overwritten when the context goes; not to be pfree'd. */
extern char *secret_strdup(MemoryContext context, const char *value);

/* Overwrites a string in place; NULL is allowed. */
extern void secret_wipe(char *value);

#endif /* SECRET_H */
