# What others do to the things that an export uses while it runs: its connector,
# keys, extension, database, roles, rights and table.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = s3export_node('main', q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '5s'), 'max_connections = 50');
my %keys = scripted_user($s3);
my $rows = 6500;
my $files = 0;
my %export;

# The last row waits for a file, when a part is in S3 already.
my $objects = <<"SQL";
CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, $rows) i;
CREATE FUNCTION gate(name text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS \$\$
BEGIN
	WHILE (pg_stat_file(name, true)).size IS NULL LOOP PERFORM pg_sleep(0.05); END LOOP;
	RETURN '';
END \$\$;
GRANT SELECT ON wide TO PUBLIC;
SQL
my $query = q(SELECT i, filler, CASE WHEN i = %d THEN gate('%s') ELSE '' END AS gate FROM wide ORDER BY i);

$node->safe_psql('postgres', $objects);
my $whole = copy_oracle($node, q(SELECT i, filler, '' AS gate FROM wide ORDER BY i), 'HEADER');

# Begins an export and returns when it has sent a part and waits.  Options: dbname,
# user, connector.
sub begin
{
	my (%options) = @_;
	my $number = ++$files;
	my %place = at_endpoint($s3);
	my $dbname = $options{dbname} // 'postgres';
	my ($out, $error) = ('', '');
	my $since = $s3->log;

	%export = (file => "file$number.csv", connector => "lake$number", dbname => $dbname, gate => $node->data_dir . "/gate$number",
		key => "$place{folder_path}/file$number.csv", error => \$error, out => \$out);
	$node->safe_psql($dbname, 'SELECT ' . connector_sql($export{connector}, %place, %keys));
	$node->safe_psql($dbname, "SELECT s3export.grant_usage('$export{connector}', 'alice')") if $options{granted};
	$node->safe_psql($dbname, "SELECT s3export.alter_connector('$export{connector}', owner => 'alice', validate => false)") if $options{owned};
	local $ENV{PGUSER} = $options{user} if defined $options{user};
	$export{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($dbname), '-c',
			"SELECT rows FROM s3export.copy_to('$export{connector}', " . sql_literal(sprintf $query, $rows, "gate$number") . ", '$export{file}')" ],
		'>', \$out, '2>', \$error);
	poll_until(sub { grep { ($_->{key} // '') eq $export{key} && $_->{worked} } $s3->log(since => $since, operation => 'UploadPart') }, "a part of $export{file}");
	return;
}

sub goes_on { append_to_file($export{gate}, "\n"); return }

# Its end, and the line for the table: an array of what the caller, the row and the bucket say.
sub ends
{
	my ($fault, $caller, $job, $bucket) = @_;
	my @seen;

	$export{handle}->finish;
	@seen = (caller_cell(${ $export{error} }), $export{dbname} eq 'postgres' ? job_cell($node, $export{file}) : 'none', scripted_cell($s3, $export{key}, $whole));
	is_deeply(\@seen, [ $caller, $job, $bucket ], "$fault: the caller, the job's row, the bucket") or diag(${ $export{error} });
	is(${ $export{out} }, "$rows\n", "$fault: the rows are counted") if $caller eq 'success';
	fault_outcome($fault, @seen);
	return;
}

sub succeeds { return ends($_[0], 'success', 'succeeded', 'the whole object') }

# A statement that has to wait for the export; its end.
sub waits
{
	my ($sql, $what, %options) = @_;
	my ($out, $error) = ('', '');
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($export{dbname}), '-c', $sql ], '>', \$out, '2>', \$error);

	poll_until(sub { $node->safe_psql('template1', "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = " . sql_literal($sql)) == 1 }, $what);
	pass("$what: waits");
	return sub { $handle->finish; is($error, '', "$what: then done"); };
}

# ---- the connector and its keys
begin();
$node->safe_psql('postgres', "SELECT s3export.drop_connector('$export{connector}')");
goes_on();
succeeds('`drop_connector()` during the export');

begin();
$node->safe_psql('postgres', "SELECT s3export.alter_connector('$export{connector}', bucket => 'elsewhere', validate => false)");
goes_on();
succeeds('`alter_connector()` to another bucket during the export');

# The old keys are gone when the new ones are there.
{
	my %new = scripted_user($s3);

	begin();
	$node->safe_psql('postgres', "SELECT s3export.set_credentials('$export{connector}', access_key_id => '$new{access_key_id}', secret_access_key => '$new{secret_access_key}')");
	$s3->call('remove_user', access_key_id => $keys{access_key_id});
	# No more often than that does an export look for new keys.
	sleep 2;
	goes_on();
	succeeds('`set_credentials()` during the export, and the old key is deleted');
	%keys = %new;
}

begin();
$s3->call('remove_user', access_key_id => $keys{access_key_id});
goes_on();
ends('the key is deleted during the export', '`28000` could not upload a part of object', 'failed `28000`, names the upload that is left', 'no object, 1 open upload');
%keys = scripted_user($s3);
$node->safe_psql('postgres', "SELECT s3export.set_credentials('$export{connector}', access_key_id => '$keys{access_key_id}', secret_access_key => '$keys{secret_access_key}')");
is($node->safe_psql('postgres', 'SELECT action FROM s3export.recover()'), 'aborted', 'the key is deleted during the export: recover() with a new one');
is(scalar($s3->uploads('exports')), 0, 'the key is deleted during the export: nothing is left');

# ---- rights and roles
$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN');
begin(user => 'alice', granted => 1);
$node->safe_psql('postgres', "SELECT s3export.revoke_usage('$export{connector}', 'alice')");
goes_on();
succeeds('`revoke_usage()` from the caller during the export');
error_like($node, "SELECT s3export.copy_to('$export{connector}', 'VALUES (1)', 'more.csv')", { sqlstate => '42501' }, 'revoke_usage(): the next export', user => 'alice');

begin(user => 'alice', granted => 1);
$node->safe_psql('postgres', 'REVOKE SELECT ON wide FROM PUBLIC');
goes_on();
succeeds('`REVOKE SELECT` on the table during the export');
error_like($node, "SELECT s3export.copy_to('$export{connector}', 'wide', 'more.csv')", { sqlstate => '42501' }, 'REVOKE SELECT: the next export', user => 'alice');
$node->safe_psql('postgres', 'GRANT SELECT ON wide TO PUBLIC');

begin(user => 'alice', granted => 1);
$node->safe_psql('postgres', "SELECT s3export.revoke_usage('$export{connector}', 'alice'); DROP ROLE alice");
goes_on();
succeeds('`DROP ROLE` of the caller during the export');
like($node->safe_psql('postgres', "SELECT owner::text FROM s3export.jobs WHERE uri LIKE '%/$export{file}'"), qr/^\d+$/, 'DROP ROLE of the caller: the row keeps its number');

$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN');
begin(owned => 1);
$node->safe_psql('postgres', 'DROP ROLE alice');
goes_on();
succeeds("`DROP ROLE` of the connector's owner during the export");

# ---- the table
begin();
{
	my $done = waits('ALTER TABLE wide ADD COLUMN later int', 'ALTER TABLE');

	goes_on();
	succeeds('`ALTER TABLE` of the table during the export, which waits');
	$done->();
}
begin();
{
	my $done = waits('CREATE TABLE kept AS SELECT * FROM wide; TRUNCATE wide', 'TRUNCATE');

	goes_on();
	succeeds('`TRUNCATE` of the table during the export, which waits');
	$done->();
	$node->safe_psql('postgres', 'INSERT INTO wide SELECT * FROM kept');
}
begin();
$node->safe_psql('postgres', 'CREATE INDEX ON wide (i); INSERT INTO wide VALUES (0); DELETE FROM wide WHERE i = 1');
goes_on();
succeeds('`CREATE INDEX`, `INSERT` and `DELETE` on the table during the export');
$node->safe_psql('postgres', 'TRUNCATE wide; INSERT INTO wide SELECT * FROM kept');
begin();
{
	my $done = waits('DROP TABLE wide', 'DROP TABLE');

	goes_on();
	succeeds('`DROP TABLE` of the table during the export, which waits');
	$done->();
	$node->safe_psql('postgres', 'ALTER TABLE kept RENAME TO wide');
}

# ---- the database and the extension
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', "CREATE EXTENSION s3export; $objects");
begin(dbname => 'other');
error_like($node, 'DROP DATABASE other', { sqlstate => '55006' }, 'DROP DATABASE');
goes_on();
$export{handle}->finish;
{
	my @seen = (caller_cell(${ $export{error} }), $node->safe_psql('other', "SELECT state FROM s3export.jobs WHERE uri LIKE '%/$export{file}'"), scripted_cell($s3, $export{key}, $whole));

	is_deeply(\@seen, [ 'success', 'succeeded', 'the whole object' ], 'DROP DATABASE is refused');
	fault_outcome('`DROP DATABASE` during the export, which is refused', @seen);
}
begin(dbname => 'other');
$node->safe_psql('postgres', 'DROP DATABASE other WITH (FORCE)');
ends('`DROP DATABASE ... WITH (FORCE)` during the export', '`57P01` terminating connection due to administrator command', 'none', 'no object');

begin();
{
	my $done = waits('DROP EXTENSION s3export CASCADE', 'DROP EXTENSION');

	goes_on();
	$export{handle}->finish;
	$done->();
	my @seen = (caller_cell(${ $export{error} }), 'dropped', scripted_cell($s3, $export{key}, $whole));

	is_deeply(\@seen, [ 'success', 'dropped', 'the whole object' ], 'DROP EXTENSION: the caller, the bucket') or diag(${ $export{error} });
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_namespace WHERE nspname = 's3export')), 0, 'DROP EXTENSION: the rows are dropped');
	fault_outcome('`DROP EXTENSION` during the export, which waits', @seen);
}

is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 's3export uploader')), 0, 'no uploader stays');
is(scalar($s3->uploads('exports')), 0, 'no upload stays open');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
