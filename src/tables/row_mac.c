/*-------------------------------------------------------------------------
 *
 * row_mac.c
 *	  Rows that only the extension's functions can have written.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/typcache.h"

#include "base/guc.h"
#include "base/message.h"
#include "tables/row_mac.h"

/*
 * The columns that decide.  Roles are in them as OIDs: a role that is renamed is the
 * same one.
 */
static const struct
{
	const char *table;
	const char *columns[24];
} deciding[] = {
	{"connector",
	 {"connector_id",
	  "name",
	  "owner",
	  "kind",
	  "credential_id",
	  "credentials_lent",
	  "endpoint_url",
	  "bucket",
	  "folder_path",
	  "region",
	  "sts_endpoint_url",
	  "addressing",
	  "payload_signing",
	  "expected_bucket_owner",
	  "server_side_encryption",
	  "kms_key_id",
	  "bucket_key",
	  "storage_class",
	  "tags",
	  "acl",
	  "content_type",
	  "reserved",
	  NULL}},
	{"credential",
	 {"credential_id", "owner", "access_key_id", "role_arn", "ambient", "version", NULL}},
	{"connector_grant", {"connector_id", "grantee", "overwrite", NULL}},
	{"base_identity", {"credential_id", NULL}},
	{"external_id", {"role", "external_id", NULL}},
	{"current", {"connector_id", "publication", "owns_publication", "feed", "origin", NULL}},
	{"job",
	 {"job_id", "owner", "connector_id", "source", "path", "arguments", "settings",
	  "system_identifier", "data_directory", "database", "timeline", "retry_until", NULL}},
};

static const char *const *
columns_of(const char *table)
{
	for (size_t i = 0; i < lengthof(deciding); i++)
	{
		if (strcmp(deciding[i].table, table) == 0)
			return deciding[i].columns;
	}
	elog(ERROR, "rows of table \"%s\" have no code", table);
}

/* The value as it is stored: what it looks like as text depends on settings. */
static void
append_value(StringInfo content, Datum value, Form_pg_attribute attribute)
{
	if (attribute->attbyval)
		message_put_int64(content, (int64) value);
	else if (attribute->attlen == -1)
	{
		struct varlena *plain = PG_DETOAST_DATUM_PACKED(value);

		message_put_bytes(content, VARDATA_ANY(plain), VARSIZE_ANY_EXHDR(plain));
	}
	else
		elog(ERROR, "column \"%s\" has an unexpected type", NameStr(attribute->attname));
}

/* From 1. */
static int
column_number(TupleDesc desc, const char *column)
{
	int number = SPI_fnumber(desc, column);

	if (number <= 0)
		elog(ERROR, "column \"%s\" is missing", column);
	return number;
}

void
row_proof_of(RowProof *proof, const char *table, HeapTuple tuple, TupleDesc desc)
{
	StringInfoData content;
	bool           null;
	Datum          mac = heap_getattr(tuple, column_number(desc, "mac"), desc, &null);

	proof->table = pstrdup(table);
	proof->mac = null ? NULL : (bytea *) PG_DETOAST_DATUM_COPY(mac);
	initStringInfo(&content);
	appendStringInfoSpaces(&content, VARHDRSZ);
	message_put_int64(&content, MyDatabaseId);
	message_put_string(&content, table);
	for (const char *const *column = columns_of(table); *column != NULL; column++)
	{
		int   number = column_number(desc, *column);
		Datum value = heap_getattr(tuple, number, desc, &null);

		message_put_int64(&content, !null);
		if (!null)
			append_value(&content, value, TupleDescAttr(desc, number - 1));
	}
	SET_VARSIZE(content.data, content.len);
	proof->content = (bytea *) content.data;
}

void
row_proof_read(RowProof *proof, const char *table, uint64 row, const char *column)
{
	bool            null;
	Datum           value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
										  SPI_fnumber(SPI_tuptable->tupdesc, column), &null);
	HeapTupleHeader header;
	HeapTupleData   tuple;
	TupleDesc       desc;
	RowProof        local;

	memset(proof, 0, sizeof(*proof));
	if (null)
		return;
	header = DatumGetHeapTupleHeader(value);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	desc =
		lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	row_proof_of(&local, table, &tuple, desc);
	ReleaseTupleDesc(desc);

	/* SPI_palloc is the context that SPI_connect found. */
	proof->table = strcpy(SPI_palloc(strlen(table) + 1), table);
	proof->content =
		memcpy(SPI_palloc(VARSIZE(local.content)), local.content, VARSIZE(local.content));
	if (local.mac != NULL)
		proof->mac = memcpy(SPI_palloc(VARSIZE(local.mac)), local.mac, VARSIZE(local.mac));
}

MacVerdict
row_proof_check(const RowProof *proof, bool writing)
{
	return mac_check(proof->content, proof->mac, writing);
}

void
row_require_proof(const RowProof *proof, bool writing)
{
	MacVerdict verdict;

	if (proof->table == NULL)
		return;
	verdict = row_proof_check(proof, writing);
	if (verdict == MAC_RIGHT)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_DATA_CORRUPTED),
		 errmsg("a row of table \"%s\" was not written by the functions of s3export", proof->table),
		 verdict == MAC_OF_OTHER_KEY
			 ? errdetail(
				   "The key that it was written with is not in the key file: \"sha256sum\" of "
				   "the right file begins with %s.",
				   mac_key_name(proof->mac))
			 : errdetail("It was restored from a dump, or written past the extension."),
		 strcmp(proof->table, "job") == 0
			 ? errhint("Queue the export again.")
			 : errhint("%sA superuser who finds what the views of s3export show to be right "
					   "can have it accepted with s3export.adopt().",
					   verdict == MAC_OF_OTHER_KEY ? "Put the right file in place.  If it is lost: "
												   : "")));
}

static const MessageMember members[] = {
	MESSAGE_MEMBER(RowProof, table),
	MESSAGE_MEMBER(RowProof, content),
	MESSAGE_MEMBER(RowProof, mac),
};

void
row_proof_serialize(StringInfo buf, const RowProof *proof)
{
	message_put_struct(buf, proof, members);
}

void
row_proof_deserialize(StringInfo buf, RowProof *proof)
{
	message_get_struct(buf, proof, members);
}
