/*-------------------------------------------------------------------------
 *
 * secret.c
 *	  Sealed secrets: AES-256-GCM under the key in s3export.key_file.
 *
 * A sealed secret is
 *
 *	  version (1) | key id (4) | nonce (12) | ciphertext | tag (16)
 *
 * Version, key id and the credential's id are authenticated with it.  The key
 * id, the first bytes of the key's SHA-256, tells a key file that was replaced
 * from a secret that was damaged.  People are shown it in hex: sha256sum of the
 * right file begins with it.  Within the ciphertext are the secret and, if there
 * is one, the session token, each with a NUL at its end.
 *
 * The key file is read each time and the key wiped after use: seals and opens
 * are rare, and so no process keeps the key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "base/secret.h"

#define DEFAULT_KEY_FILE "s3export.key"

#define SEAL_VERSION 1
#define KEY_LEN SECRET_KEY_LEN
#define KEY_ID_LEN 4
#define NONCE_LEN 12
#define TAG_LEN 16
#define PREFIX_LEN (1 + KEY_ID_LEN) /* version and key id */
#define OVERHEAD (PREFIX_LEN + NONCE_LEN + TAG_LEN)
#define AAD_LEN (PREFIX_LEN + sizeof(uint64))

/* Memory that is overwritten before its context gives it back. */
typedef struct WipedMemory
{
	MemoryContextCallback callback;
	size_t                size;
	char                  data[FLEXIBLE_ARRAY_MEMBER];
} WipedMemory;

static void
wipe_memory(void *arg)
{
	WipedMemory *memory = arg;

	explicit_bzero(memory->data, memory->size);
}

static char *
alloc_wiped(MemoryContext context, size_t size)
{
	WipedMemory *memory = MemoryContextAlloc(context, offsetof(WipedMemory, data) + size);

	memory->size = size;
	memory->callback.func = wipe_memory;
	memory->callback.arg = memory;
	MemoryContextRegisterResetCallback(context, &memory->callback);
	return memory->data;
}

char *
secret_strdup(MemoryContext context, const char *value)
{
	size_t size = strlen(value) + 1;

	return memcpy(alloc_wiped(context, size), value, size);
}

void
secret_wipe(char *value)
{
	if (value != NULL)
		explicit_bzero(value, strlen(value));
}

static const char *
key_file_path(void)
{
	return guc_key_file[0] != '\0' ? guc_key_file : psprintf("%s/%s", DataDir, DEFAULT_KEY_FILE);
}

const char *
secret_key_name(const unsigned char *sealed)
{
	const unsigned char *id = sealed + 1;

	return psprintf("%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
}

static const char *
command_to_make_key(const char *path)
{
	return psprintf("openssl rand -out \"%s\" %d && chmod 600 \"%s\"", path, KEY_LEN, path);
}

static int
hint_make_key(const char *path)
{
	return errhint("As the user that runs the server, make one with: %s",
				   command_to_make_key(path));
}

/* Writes a new file that only its owner may read; returns false with errno set. */
static bool
write_new_file(const char *path, const unsigned char *data, size_t len)
{
	int fd =
		OpenTransientFilePerm(path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY, S_IRUSR | S_IWUSR);
	int save_errno = 0;

	if (fd < 0)
		return false;
	errno = 0;
	if (write(fd, data, len) != (ssize_t) len)
		save_errno = errno ? errno : ENOSPC;
	else if (pg_fsync(fd) != 0)
		save_errno = errno;
	if (CloseTransientFile(fd) != 0 && save_errno == 0)
		save_errno = errno;
	errno = save_errno;
	return save_errno == 0;
}

/*
 * The file gets its name only when it is complete, and by link(), which fails
 * where rename() would replace: of several backends that make a key at the same
 * time one wins, and all of them go on to read that one.
 */
static void
create_key_file(const char *path)
{
	char         *temporary = psprintf("%s.%d", path, MyProcPid);
	unsigned char key[KEY_LEN];
	bool          created;
	int           save_errno;

	if (!pg_strong_random(key, KEY_LEN))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not generate a random encryption key")));

	/* a crash may have left one of an earlier process with this id */
	unlink(temporary);
	created =
		write_new_file(temporary, key, KEY_LEN) && (link(temporary, path) == 0 || errno == EEXIST);
	save_errno = errno;
	explicit_bzero(key, KEY_LEN);
	unlink(temporary);
	errno = save_errno;
	if (!created)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not create key file \"%s\": %m", path)));
	fsync_fname_ext(DataDir, true, false, ERROR);
	pfree(temporary);
}

/* "sealed" is a secret that needs the file; NULL: there is none. */
static void
report_missing_key_file(const char *path, const unsigned char *sealed)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_UNDEFINED_FILE), errmsg("key file \"%s\" does not exist", path),
		 sealed != NULL ? errdetail("Stored secrets are encrypted with the key that it held: "
									"\"sha256sum\" of the file begins with %s.",
									secret_key_name(sealed))
						: errdetail("It is to hold the key that secrets are encrypted with."),
		 RecoveryInProgress() ? errhint("Copy the file from the primary to this place.")
		 : sealed != NULL
			 ? errhint("Copy the file to this place: after pg_upgrade from the old data directory, "
					   "else from a backup.  If it is lost, make another one with: %s, and store "
					   "each secret again.",
					   command_to_make_key(path))
			 : hint_make_key(path)));
}

/*
 * As the server does with the key of its certificate: a file of the server's user
 * is for that user alone, and one of root's may be lent to a group.
 */
static void
check_key_file_access(const char *path, const struct stat *st)
{
	if (st->st_uid != geteuid() && st->st_uid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("key file \"%s\" must be owned by the database user or root", path)));
	if ((st->st_uid == geteuid() && (st->st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("key file \"%s\" has group or world access", path),
			 errdetail("File must have permissions u=rw (0600) or less if owned by the database "
					   "user, or permissions u=rw,g=r (0640) or less if owned by root."),
			 errhint("Run: chmod 600 \"%s\"", path)));
}

static void
check_key_file(const char *path, int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not stat file \"%s\": %m", path)));
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("key file \"%s\" is not a regular file", path),
				 errhint("Set s3export.key_file to a file that holds %d random bytes.", KEY_LEN)));
	check_key_file_access(path, &st);
	if (st.st_size != KEY_LEN)
		ereport(ERROR, (errcode(ERRCODE_CONFIG_FILE_ERROR),
						errmsg("key file \"%s\" does not hold a key", path),
						errdetail("A key has %d bytes, the file has %lld.", KEY_LEN,
								  (long long) st.st_size),
						hint_make_key(path)));
}

static void
read_open_file(const char *path, int fd, unsigned char *key)
{
	ssize_t len = read(fd, key, KEY_LEN);

	if (len == KEY_LEN)
		return;
	if (len >= 0)
		errno = EIO;
	ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path)));
}

/* Without asking anybody only where it does no harm. */
static bool
may_create_key_file(bool make, const unsigned char *sealed)
{
	return make && sealed == NULL &&  /* they would have to do without theirs */
		   guc_key_file[0] == '\0' && /* an administrator who names a file means that one */
		   !RecoveryInProgress();     /* a standby's has to be the primary's */
}

/*
 * "sealed" is a secret that is stored, of which the right file is known; NULL:
 * there is none.  "make": a file that is not there may be made.
 */
static void
read_key(const char *path, bool make, const unsigned char *sealed, unsigned char *key)
{
	int fd;

	/* O_NONBLOCK: opening a FIFO would wait for its writer */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0 && errno == ENOENT)
	{
		if (!may_create_key_file(make, sealed))
			report_missing_key_file(path, sealed);
		create_key_file(path);
		fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	}
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not open key file \"%s\": %m", path),
				 errdetail("It holds the key that stored secrets are encrypted with.")));
	/* The uploader raises errors outside of transactions, which would close it. */
	PG_TRY();
	{
		check_key_file(path, fd);
		read_open_file(path, fd, key);
	}
	PG_FINALLY();
	{
		CloseTransientFile(fd);
	}
	PG_END_TRY();
}

/* What is authenticated beside the ciphertext; its first PREFIX_LEN bytes are stored. */
static bool
make_aad(unsigned char *aad, const unsigned char *key, int64 credential_id)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	uint64        id = pg_hton64((uint64) credential_id);

	if (EVP_Digest(key, KEY_LEN, digest, NULL, EVP_sha256(), NULL) != 1)
		return false;
	aad[0] = SEAL_VERSION;
	memcpy(aad + 1, digest, KEY_ID_LEN);
	memcpy(aad + PREFIX_LEN, &id, sizeof(id));
	return true;
}

/*
 * One pass of AES-256-GCM; "out" may be "in".  False when libcrypto fails and,
 * on decryption, when the tag does not match.
 */
static bool
run_cipher(bool encrypt, const unsigned char *key, const unsigned char *nonce,
		   const unsigned char *aad, const unsigned char *in, int len, unsigned char *out,
		   unsigned char *tag)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int             n;
	bool            ok;

	ok = context != NULL &&
		 EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce, encrypt) == 1 &&
		 (encrypt || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1) &&
		 EVP_CipherUpdate(context, NULL, &n, aad, AAD_LEN) == 1 &&
		 EVP_CipherUpdate(context, out, &n, in, len) == 1 &&
		 EVP_CipherFinal_ex(context, out + n, &n) == 1 &&
		 (!encrypt || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_LEN, tag) == 1);
	EVP_CIPHER_CTX_free(context);
	return ok;
}

/* The part of a stored secret that tells its key; NULL: there is none. */
static const unsigned char *
prefix_of(const bytea *stored)
{
	if (stored == NULL || VARSIZE_ANY_EXHDR(stored) <= OVERHEAD)
		return NULL;
	return (const unsigned char *) VARDATA_ANY(stored);
}

bytea *
secret_seal(const char *secret, const char *token, int64 credential_id, const bytea *stored)
{
	size_t         secret_size = strlen(secret) + 1;
	size_t         token_size = token ? strlen(token) + 1 : 0;
	size_t         len = secret_size + token_size;
	bytea         *sealed = palloc(VARHDRSZ + OVERHEAD + len);
	unsigned char *prefix = (unsigned char *) VARDATA(sealed);
	unsigned char *nonce = prefix + PREFIX_LEN;
	unsigned char *text = nonce + NONCE_LEN;
	unsigned char  key[KEY_LEN];
	unsigned char  aad[AAD_LEN];
	bool           ok;

	SET_VARSIZE(sealed, VARHDRSZ + OVERHEAD + len);
	if (!pg_strong_random(nonce, NONCE_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random nonce")));
	read_key(key_file_path(), true, prefix_of(stored), key);

	/* encrypted in place, so that no other copy needs wiping */
	memcpy(text, secret, secret_size);
	if (token)
		memcpy(text + secret_size, token, token_size);
	ok = make_aad(aad, key, credential_id) &&
		 run_cipher(true, key, nonce, aad, text, (int) len, text, text + len);
	explicit_bzero(key, KEY_LEN);
	if (!ok)
	{
		explicit_bzero(text, len);
		ERR_clear_error();
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not encrypt a secret")));
	}
	memcpy(prefix, aad, PREFIX_LEN);
	return sealed;
}

static void
report_damaged_secret(const char *detail)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_DATA_CORRUPTED), errmsg("cannot decrypt a stored secret"),
		 errdetail("%s", detail),
		 errhint("Store it again with s3export.set_credentials() or s3export.set_identity().")));
}

Secret *
secret_open(MemoryContext parent, const bytea *sealed, int64 credential_id)
{
	const char    *path = key_file_path();
	size_t         size = VARSIZE_ANY_EXHDR(sealed);
	unsigned char *prefix = (unsigned char *) VARDATA_ANY(sealed);
	unsigned char *nonce = prefix + PREFIX_LEN;
	unsigned char *text = nonce + NONCE_LEN;
	unsigned char  key[KEY_LEN];
	unsigned char  aad[AAD_LEN];
	MemoryContext  context;
	Secret        *result;
	size_t         len;
	bool           key_matches;
	bool           ok;

	if (size <= OVERHEAD || prefix[0] != SEAL_VERSION)
		report_damaged_secret("It does not have the format of this version of s3export.");
	len = size - OVERHEAD;

	context = AllocSetContextCreate(parent, "s3export secret", ALLOCSET_SMALL_SIZES);
	result = MemoryContextAlloc(context, sizeof(Secret));
	result->secret = alloc_wiped(context, len);

	read_key(path, false, prefix, key);
	ok = make_aad(aad, key, credential_id);
	key_matches = ok && memcmp(prefix, aad, PREFIX_LEN) == 0;
	ok = key_matches && run_cipher(false, key, nonce, aad, text, (int) len,
								   (unsigned char *) result->secret, text + len);
	explicit_bzero(key, KEY_LEN);
	if (!ok)
	{
		ERR_clear_error();
		MemoryContextDelete(context);
	}
	if (!key_matches)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("cannot decrypt a stored secret"),
			 errdetail("It was encrypted with another key than the one in \"%s\": \"sha256sum\" of "
					   "the right file begins with %s.",
					   path, secret_key_name(prefix)),
			 errhint("Put the earlier key file back in its place, or store the secret again with "
					 "s3export.set_credentials() or s3export.set_identity().")));
	if (!ok)
		report_damaged_secret("It was changed, or it belongs to another credential.");

	len -= strlen(result->secret) + 1;
	result->token = len > 0 ? result->secret + strlen(result->secret) + 1 : NULL;
	return result;
}

void
secret_read_key(bool make, const bytea *stored, unsigned char *key)
{
	read_key(key_file_path(), make, prefix_of(stored), key);
}

void
secret_require_key(const bytea *stored)
{
	unsigned char key[KEY_LEN];

	read_key(key_file_path(), false, prefix_of(stored), key);
	explicit_bzero(key, KEY_LEN);
}

bool
secret_has_key(void)
{
	return access(key_file_path(), F_OK) == 0;
}
