# Rows that did not come from the extension's functions: written past its triggers, or by a
# subscription, they are refused; and if they are there all the same, nobody acts on them.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Currents;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = currents_node('main', q(s3export.retry_timeout = '0'));
my %keys = scripted_user($s3);
my $url = sql_literal($s3->url);

sub sql
{
	my ($statement, $user) = @_;

	return $node->safe_psql('postgres', $statement, extra_params => [ '-U', $user // getpwuid($>) ]);
}

sub sqlstate
{
	my ($statement, $user) = @_;

	return sql_error($node, $statement, defined $user ? (user => $user) : ())->{sqlstate} // 'none';
}

sql(q(
	CREATE ROLE boss SUPERUSER;
	CREATE ROLE writer LOGIN IN ROLE pg_read_all_data, pg_write_all_data;
	GRANT SET ON PARAMETER session_replication_role TO writer;));
create_connector($node, 'lake', bucket => 'exports', endpoint_url => $s3->url, %keys);
sql(q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'first.csv')));

# ---- past the triggers of ordinary sessions
my @tables = split /\n/, sql(q(SELECT relname FROM pg_class WHERE relnamespace = 's3export'::regnamespace AND relkind = 'r' ORDER BY 1));
cmp_ok(scalar(@tables), '>=', 13, 'tables of the extension');
foreach my $table (@tables)
{
	my $column = sql("SELECT attname FROM pg_attribute WHERE attrelid = 's3export.$table'::regclass AND attnum = 1");

	foreach my $statement ("INSERT INTO s3export.$table OVERRIDING SYSTEM VALUE SELECT * FROM s3export.$table", "INSERT INTO s3export.$table DEFAULT VALUES", "UPDATE s3export.$table SET $column = DEFAULT", "DELETE FROM s3export.$table")
	{
		is(sqlstate("SET session_replication_role = replica; $statement", 'writer'), '42501', "refused: $statement");
	}
}

# ---- a subscription, whose owner is no superuser any more
{
	sql('CREATE DATABASE publisher');
	$node->safe_psql('publisher', q(
		CREATE SCHEMA s3export;
		CREATE TABLE s3export.connector_grant (connector_id bigint, grantee oid, PRIMARY KEY (connector_id, grantee));
		CREATE PUBLICATION p FOR TABLE s3export.connector_grant;
		SELECT pg_create_logical_replication_slot('s', 'pgoutput')));
	sql('CREATE ROLE subscriber SUPERUSER LOGIN IN ROLE pg_write_all_data, pg_read_all_data');
	# Later servers would ask for a password, and write as the table's owner.
	my $options = $node->pg_version >= 16 ? ', password_required = false, run_as_owner = true' : '';
	sql('CREATE SUBSCRIPTION s CONNECTION ' . sql_literal($node->connstr('publisher')) . qq( PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false$options)), 'subscriber');
	sql('ALTER ROLE subscriber NOSUPERUSER');
	my $offset = -s $node->logfile;

	$node->safe_psql('publisher', q(INSERT INTO s3export.connector_grant SELECT 1, oid FROM pg_roles WHERE rolname = 'writer'));
	poll_until(sub { slurp_file($node->logfile, $offset) =~ /ERROR:  permission denied for table connector_grant/ }, 'the refusal of a replicated row');
	is(sql('SELECT count(*) FROM s3export.connector_grant'), 0, 'a subscription cannot write rows either');
	sql('ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s');
	$node->safe_psql('publisher', q(SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 's'));
	poll_until(sub { $node->psql('publisher', q(SELECT pg_drop_replication_slot('s'))) == 0 }, 'the end of the slot');
}

# ---- rows that are there all the same
sub untrusted
{
	my ($statement, $table, $what, %more) = @_;

	error_like($node, $statement, { sqlstate => 'XX001', message => qq(a row of table "$table" was not written by the functions of s3export), detail => qr/restored from a dump, or written past/, %more }, $what);
	return;
}

sub set_running
{
	my ($jobs) = @_;

	$node->append_conf('postgresql.conf', "s3export.max_running_jobs = $jobs");
	$node->reload;
	poll_until(sub { sql("LOAD 's3export'; SHOW s3export.max_running_jobs") eq $jobs }, 'the setting');
	return;
}

sub export { return "SELECT s3export.copy_to('$_[0]', 'VALUES (1)', 'x-' || current_user || '.csv', if_exists => 'overwrite')"; }

# As a superuser, who passes the triggers.
{
	my %columns = (
		connector => {
			name => q('lake2'), owner => q('boss'), endpoint_url => q('http://127.0.0.1:1'), bucket => q('other'), folder_path => q('other'), region => q('eu-west-1'), sts_endpoint_url => q('http://127.0.0.1:1'),
			addressing => q('path'), payload_signing => q('unsigned'), expected_bucket_owner => q('123456789012'), server_side_encryption => q('AES256'), storage_class => q('GLACIER'), tags => q('{"a": "b"}'), acl => q('private'),
			content_type => q('text/plain') },
		credential => { owner => q('writer'), access_key_id => q('AKIAIOSFODNN7EXAMPLE'), version => 7 });

	foreach my $table (sort keys %columns)
	{
		foreach my $column (sort keys %{ $columns{$table} })
		{
			my $name = $column eq 'name' ? 'lake2' : 'lake';
			my $before = sql("SELECT quote_nullable($column) FROM s3export.$table WHERE credential_id = 1");

			sql("UPDATE s3export.$table SET $column = $columns{$table}{$column} WHERE credential_id = 1");
			untrusted(export($name), $table, "$table.$column");
			sql("UPDATE s3export.$table SET $column = $before WHERE credential_id = 1");
		}
	}
	is(sqlstate(export('lake')), 'none', 'a row that is as it was is right');
	foreach my $table (qw(connector credential connector_grant base_identity external_id current job))
	{
		is(sql("SELECT count(*) FROM pg_attribute WHERE attrelid = 's3export.$table'::regclass AND attname = 'mac'"), 1, "$table has a code");
	}
}

# A change through the functions does not make it right, but adopt() does.
sql(q(CREATE ROLE bob LOGIN; CREATE ROLE alice LOGIN));
sql(q(INSERT INTO s3export.connector_grant SELECT connector_id, 'bob' FROM s3export.connector));
is(sqlstate(export('lake'), 'bob'), 'XX001', 'a forged grant');
sql(q(SELECT s3export.grant_usage('lake', 'alice')));
is(sqlstate(export('lake'), 'alice'), 'none', 'one of grant_usage()');
sql(q(UPDATE s3export.connector SET folder_path = 'moved'));
untrusted($_, 'connector', "no laundering: $_")
  foreach q(SELECT s3export.alter_connector('lake', region => 'us-east-1', validate => false)), q(SELECT s3export.grant_usage('lake', 'writer')),
  q(SELECT s3export.set_credentials('lake', 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', validate => false)),
  q(SELECT s3export.create_connector('thief', 'exports', credentials_from => 'lake', validate => false)), q(SELECT * FROM s3export.test_credentials('lake'));
is(sqlstate('SELECT s3export.adopt()', 'writer'), '42501', 'adopt() is for superusers');
sql('GRANT EXECUTE ON FUNCTION s3export.adopt TO writer');
is(sqlstate('SELECT s3export.adopt()', 'writer'), '42501', 'even when it is granted');
is(sql('SELECT * FROM s3export.adopt()'), "connector|lake\nconnector_grant|lake to bob", 'adopt() says what it has accepted');
is(sql('SELECT * FROM s3export.adopt()'), '', 'once');
is(sqlstate(export('lake'), $_), 'none', "then $_ can use it") foreach qw(alice bob);

# ---- jobs
{
	set_running(0);
	sql(q(
		CREATE FUNCTION forge() RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE forged ()'; RETURN 'x'; END $$;
		SELECT s3export.copy_to('lake', 'VALUES (1)', 'queued.csv', wait => false)));
	sql(q(INSERT INTO s3export.job (job_id, owner, connector_id, connector, source, path, arguments, settings, system_identifier, data_directory, database, timeline, state, queued_at)
		SELECT 900001, owner, connector_id, connector, 'SELECT forge()', 'forged.csv', arguments || '{"source": "SELECT public.forge()", "path": "forged.csv"}', settings, system_identifier, data_directory, database, timeline, 'queued', now()
			FROM s3export.job WHERE path = 'queued.csv'));
	sql(q(INSERT INTO s3export.job (job_id, owner, connector_id, connector, source, path, arguments, settings, system_identifier, data_directory, database, timeline, state, queued_at, mac)
		SELECT 900002, owner, connector_id, connector, 'SELECT forge()', 'forged2.csv', arguments || '{"source": "SELECT public.forge()", "path": "forged2.csv"}', settings, system_identifier, data_directory, database, timeline, 'queued', now(), mac
			FROM s3export.job WHERE path = 'queued.csv'));
	set_running(2);
	untrusted("SELECT s3export.wait($_)", 'job', "job $_", hint => 'Queue the export again.') foreach 900001, 900002;
	is(sql(q(SELECT state FROM s3export.wait((SELECT job_id FROM s3export.jobs WHERE path = 'queued.csv')))), 'succeeded', 'a job that was queued is run');
	is(sql(q(SELECT to_regclass('forged') IS NULL)), 't', 'nothing of a forged one is');
}

# ---- what our own functions change goes on working
sql(q(SELECT s3export.alter_connector('lake', new_name => 'sea', storage_class => 'STANDARD_IA', tags => '{"a": "b"}', owner => 'alice'); ALTER ROLE alice RENAME TO alicia));
is(sqlstate(export('sea'), 'alicia'), 'none', 'a connector that was altered, of an owner who was renamed');
sql("SELECT s3export.set_credentials('sea', " . join(', ', map { "$_ => " . sql_literal($keys{$_}) } sort keys %keys) . ')');
sql(q(SELECT s3export.alter_connector('sea', content_type => 'text/csv', validate => false); SELECT s3export.revoke_usage('sea', 'bob')));
is(sqlstate(export('sea'), 'alicia'), 'none', 'and got new credentials');
is(sql('SELECT * FROM s3export.adopt()'), '', 'all rows are right');

# ---- another key
{
	my $key = $node->data_dir . '/s3export.key';

	rename $key, "$key.old" or die "could not rename $key: $!";
	append_to_file($key, 'x' x 32);
	chmod 0600, $key;
	untrusted(export('sea'), 'connector', 'another key', detail => qr{The key that it was written with is not in the key file: "sha256sum" of the right file begins with [0-9a-f]{8}\.});
	rename "$key.old", $key or die "could not rename $key.old: $!";
	is(sqlstate(export('sea')), 'none', 'the key again');
}

done_testing();
