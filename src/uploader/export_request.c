/*-------------------------------------------------------------------------
 *
 * export_request.c
 *	  What an uploader is asked to export, and how that travels to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/message.h"
#include "uploader/export_request.h"

#define MEMBER(member) MESSAGE_MEMBER(ExportRequest, member)

static const MessageMember members[] = {
	MEMBER(job_id),
	MEMBER(owner),
	MEMBER(exporter),
	MEMBER(places),
	MEMBER(source),
	MEMBER(path),
	MEMBER(stem),
	MEMBER(suffix),
	MEMBER(own_only),
	MEMBER(on_empty),
	MEMBER(proven),
	MEMBER(manifest),
	MEMBER(description),
	MEMBER(files.compression),
	MEMBER(files.overwrite),
	MEMBER(files.partitioned),
	MEMBER(files.named),
	MEMBER(files.manifest_name),
	MEMBER(files.max_open),
	MEMBER(files.header_once),
	MEMBER(files.max_file_size),
	MEMBER(files.max_rows_per_file),
};

void
export_request_serialize(StringInfo buf, const ExportRequest *request)
{
	message_put_struct(buf, request, members);
}

void
export_request_deserialize(StringInfo buf, ExportRequest *request)
{
	*request = (ExportRequest){0};
	message_get_struct(buf, request, members);
}
