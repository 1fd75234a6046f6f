/* s3export--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION s3export" to load this file. \quit

CREATE SCHEMA s3export;

-- ---------------------------------------------------------------- connectors

-- ------------------------------------------------------------------- exports


CREATE SEQUENCE s3export.job_id_seq;

CREATE TABLE s3export.job (
    job_id bigint PRIMARY KEY,
    owner regrole NOT NULL,
    connector_id bigint NOT NULL,
    connector text,
    source text NOT NULL,
    bucket text NOT NULL,
    key text NOT NULL,
    uri text NOT NULL,
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'completing', 'succeeded', 'failed', 'cancelled')),
    upload_id text,
    rows bigint NOT NULL DEFAULT 0,
    files integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz,
    leader_pid integer,
    uploader_pid integer,
    error_code text,
    error_message text,
    error_detail text,
    error_hint text
);

CREATE TABLE s3export.job_file (
    job_id bigint NOT NULL REFERENCES s3export.job ON DELETE CASCADE,
    file_no integer NOT NULL,
    uri text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    parts integer NOT NULL,
    etag text,
    crc32c text,
    finished_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (job_id, file_no)
);

-- A role sees its own jobs and those of the roles it is a member of.  Jobs of
-- roles that exist no more are left to superusers.
CREATE VIEW s3export.jobs WITH (security_barrier) AS
    SELECT job_id, owner, connector, source, uri, state, rows, files, bytes, attempts,
           started_at, finished_at, finished_at OPERATOR(pg_catalog.-) started_at AS duration,
           leader_pid, uploader_pid, upload_id, error_code, error_message, error_detail, error_hint
    FROM s3export.job
    WHERE coalesce(pg_catalog.pg_has_role(owner, 'USAGE'),
                   pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on');

CREATE VIEW s3export.job_files WITH (security_barrier) AS
    SELECT f.job_id, f.file_no, f.uri, f.rows, f.bytes, f.parts, f.etag, f.crc32c, f.finished_at
    FROM s3export.job_file f JOIN s3export.jobs j USING (job_id);

GRANT SELECT ON s3export.jobs, s3export.job_files TO PUBLIC;

CREATE FUNCTION s3export.copy_to(
    connector text,
    source text,
    path text DEFAULT NULL,
    header boolean DEFAULT true,
    delimiter text DEFAULT NULL,
    quote text DEFAULT NULL,
    escape text DEFAULT NULL,
    "null" text DEFAULT NULL,
    force_quote text[] DEFAULT NULL,
    encoding text DEFAULT NULL,
    if_exists text DEFAULT 'error',
    on_empty text DEFAULT 'file',
    OUT job_id bigint,
    OUT uri text,
    OUT rows_uploaded bigint,
    OUT files_uploaded bigint,
    OUT bytes_uploaded bigint)
RETURNS record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 's3export_copy_to';
