-- Every object of the extension and who may do what with it, from the catalogs: a
-- new one has to be put into the expected output, and be thought about.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS s3export;
RESET client_min_messages;

-- tables, sequences and views: what others than their owner may
SELECT relkind, relname, relrowsecurity AS row_security, reloptions,
		(SELECT string_agg(privilege_type || ' to ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, ', ')
			FROM aclexplode(relacl) WHERE grantee <> relowner) AS privileges
	FROM pg_class WHERE relnamespace = 's3export'::regnamespace AND relkind NOT IN ('i', 'I', 't', 'c')
	ORDER BY relkind, relname COLLATE "C";
SELECT attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
	WHERE relnamespace = 's3export'::regnamespace AND attacl IS NOT NULL;
SELECT polrelid::regclass, polname FROM pg_policy JOIN pg_class c ON c.oid = polrelid WHERE relnamespace = 's3export'::regnamespace;
SELECT (aclexplode(nspacl)).privilege_type, (aclexplode(nspacl)).grantee = 0 AS public FROM pg_namespace
	WHERE nspname = 's3export' ORDER BY 2, 1;

-- functions
SELECT proname, prosecdef AS security_definer, l.lanname AS language, proleakproof AS leakproof, proconfig AS settings,
		(SELECT string_agg(CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, ', ')
			FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee <> proowner) AS executed_by
	FROM pg_proc p JOIN pg_language l ON l.oid = prolang WHERE pronamespace = 's3export'::regnamespace
	ORDER BY proname COLLATE "C";

-- tables that may be written to behind the functions' back: none
SELECT relname FROM pg_class c WHERE relnamespace = 's3export'::regnamespace AND relkind = 'r' AND NOT EXISTS (
	SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgfoid = 's3export.refuse_direct_writes'::regproc AND tgenabled = 'A'
		AND tgtype & 2 <> 0 AND tgtype & (4 | 8 | 16) = 4 | 8 | 16 HAVING count(DISTINCT tgtype & 1) = 2);
-- catalogs in which the extension has objects, and triggers but those above: those that keep out what belongs to no role
SELECT DISTINCT classid::regclass FROM pg_depend
	WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 's3export')
	ORDER BY 1;
SELECT tgrelid::regclass, tgname, tgfoid::regproc, tgenabled FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
	WHERE relnamespace = 's3export'::regnamespace AND NOT tgisinternal AND tgname NOT IN ('refuse_direct_writes', 'refuse_written_rows')
	ORDER BY tgrelid::regclass::text COLLATE "C", tgname;
SELECT evtname, evtenabled FROM pg_event_trigger WHERE evtname LIKE 's3export%';
-- objects in the schema that are not the extension's, or have another owner: none
SELECT oid::regclass FROM pg_class c WHERE relnamespace = 's3export'::regnamespace AND relkind IN ('r', 'v', 'S') AND
	(relowner <> (SELECT extowner FROM pg_extension WHERE extname = 's3export') OR NOT EXISTS (
		SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND (deptype = 'e' OR deptype = 'i' AND relkind = 'S')));
SELECT oid::regprocedure FROM pg_proc p WHERE pronamespace = 's3export'::regnamespace AND
	(proowner <> (SELECT extowner FROM pg_extension WHERE extname = 's3export') OR NOT EXISTS (
		SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e'));

-- what is created with the extension needs a superuser
SELECT superuser, trusted, relocatable FROM pg_available_extension_versions WHERE name = 's3export' AND version = '1.0';

-- views that can be written through end at the same trigger
CREATE ROLE regress_s3export_writes IN ROLE pg_read_all_data, pg_write_all_data;
CREATE ROLE regress_s3export_monitors IN ROLE pg_monitor, pg_signal_backend, pg_read_all_settings, pg_read_all_stats;
SET ROLE regress_s3export_writes;
UPDATE s3export.jobs SET state = 'queued';
DELETE FROM s3export.jobs;
INSERT INTO s3export.jobs (job_id) VALUES (1);
UPDATE s3export.job SET owner = 'regress_s3export_writes';
INSERT INTO s3export.job_file (job_id) VALUES (1);
DELETE FROM s3export.job_file;
COPY s3export.job FROM stdin;
\.
MERGE INTO s3export.job USING (VALUES (1)) v ON false WHEN NOT MATCHED THEN INSERT (job_id) VALUES (1);
TRUNCATE s3export.job;
CREATE TRIGGER mine BEFORE INSERT ON s3export.job EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE s3export.mine ();
SET ROLE regress_s3export_monitors;
SELECT * FROM s3export.job;
SELECT count(*) FROM s3export.jobs;
RESET ROLE;
DROP ROLE regress_s3export_writes, regress_s3export_monitors;
