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
 * another row does not open.  Sealing makes the key file (mode 0600) when the
 * default one does not exist yet, but not on a standby.  Both raise errors that
 * say which file is at fault and never what was in it.
 */
extern bytea *secret_seal(const char *secret, const char *token, int64 credential_id);

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
 * wipes.  "make": as sealing does, makes the file.
 */
extern void secret_read_key(bool make, unsigned char *key);

/* A copy in "context" that is overwritten when the context goes; not to be pfree'd. */
extern char *secret_strdup(MemoryContext context, const char *value);

/* Overwrites a string in place; NULL is allowed. */
extern void secret_wipe(char *value);

#endif /* SECRET_H */
