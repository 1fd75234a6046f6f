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

/* Palloc'd.  Makes the key file, and raises errors about it, as secret_seal does. */
extern bytea *mac_make(const bytea *message);

/*
 * "mac" is not toasted; NULL is wrong.  "make_key": as mac_make, for whoever is about to
 * make one.  Raises errors about the key file alone.
 */
extern MacVerdict mac_check(const bytea *message, const bytea *mac, bool make_key);

#endif /* MAC_H */
