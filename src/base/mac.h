/*-------------------------------------------------------------------------
 *
 * mac.h
 *	  Message authentication codes under the key in s3export.key_file.
 *
 * Whoever can write a message and cannot read the key file cannot make its code.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MAC_H
#define MAC_H

typedef enum MacVerdict
{
	MAC_RIGHT,
	MAC_WRONG,
	MAC_OF_OTHER_KEY
} MacVerdict;

/* Palloc'd.  Makes the key file, and raises errors about it, as secret_seal does: see "stored" there. */
extern bytea *mac_make(const bytea *message, const bytea *stored);

/*
 * "mac" is not toasted; NULL is wrong.  "missing_ok": where there is no key file, it is of
 * another key.  Raises errors about the key file alone.
 */
extern MacVerdict mac_check(const bytea *message, const bytea *mac, bool missing_ok);

/* What "sha256sum" of the file of its key begins with; palloc'd. */
extern const char *mac_key_name(const bytea *mac);

#endif /* MAC_H */
