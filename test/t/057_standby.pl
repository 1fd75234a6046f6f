# Exports on a hot standby, where nothing can be written: what they write to S3 is
# the same, and the log says what the job's row would.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(sleep time);

s3_or_skip();
my $scripted = scripted_s3();
my $folder = unique_folder();
my $primary = s3export_node('primary', 'wal_level = replica', 'max_wal_senders = 4', 'autovacuum = off', 's3export.part_size = 5MB', 'max_parallel_workers = 8');

create_connector($primary, 'lake', folder_path => $folder);
create_connector($primary, 'scripted', at_endpoint($scripted), scripted_user($scripted));
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE orders AS SELECT i AS id, repeat(md5(i::text), 32) AS note FROM generate_series(1, 20000) i;
CREATE TABLE busy AS SELECT * FROM orders WHERE id <= 2000;
ANALYZE;
SQL
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = off');
# The test's way to copy a backup, unlike pg_basebackup, makes files for all to read.
chmod 0600, $standby->data_dir . '/s3export.key';
$standby->start;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

# What a statement that exports returns, in unaligned form.
sub copy_to
{
	my ($source, $name, $connector) = @_;

	return "SELECT job_id, uri, rows, files, bytes FROM s3export.copy_to('" . ($connector // 'lake') . "', "
	  . sql_literal($source) . ', ' . sql_literal($name) . ')';
}

# Starts such a statement on the standby.
sub start
{
	my ($sql) = @_;
	my %run = (out => '', err => '');

	$run{handle} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $standby->connstr('postgres'), '-c', $sql ],
		'<', \undef, '>', \$run{out}, '2>', \$run{err});
	return \%run;
}

sub finish
{
	my ($run) = @_;

	$run->{handle}->finish;
	chomp(my $out = $run->{out});
	return $out;
}

# Rows over about "seconds" s.
sub paced
{
	my ($table, $seconds) = @_;

	return "SELECT id, note, CASE WHEN id % 100 = 0 THEN pg_sleep($seconds * 100.0 / (SELECT count(*) FROM $table)) END FROM $table";
}

# Waits until a part is in the bucket, or for a small one until rows are on their way.
sub wait_for_rows
{
	poll_until(sub { $standby->safe_psql('postgres', 'SELECT tuples_processed > 0 FROM pg_stat_progress_copy') eq 't' }, 'rows');
	return;
}

# What the log says of an export, by the end of its URI.
sub logged
{
	my ($name) = @_;

	return poll_until(sub { (slurp_file($standby->logfile) =~ /LOG:  (export to "[^"]*$name".*(?:\n.*(?:DETAIL|HINT):  .*)*)/)[0] }, "the log of $name");
}

# ---- the same bytes
my $started = time;
my $expected = copy_oracle($standby, 'SELECT * FROM orders', 'HEADER');
my $bytes = length $expected;
is($standby->safe_psql('postgres', copy_to('SELECT * FROM orders ORDER BY id', 'orders.csv')), "|s3://$S3{BUCKET}/$folder/orders.csv|20000|1|$bytes", 'an export on a standby');
ok(s3_get("$folder/orders.csv") eq $expected, 'writes what COPY writes');
like(logged('orders.csv'), qr/^export to "s3:\/\/$S3{BUCKET}\/$folder\/orders\.csv" succeeded: 20000 rows, $bytes bytes, 4 parts, \d+\.\d\d\d s \(connector "lake", PID \d+\)$/, 'and the log says what the row would');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM s3export.jobs'), 0, 'as there is no row');
is($standby->safe_psql('postgres', copy_to('VALUES (1)', 'small.csv')), "|s3://$S3{BUCKET}/$folder/small.csv|1|1|10", 'a small one');
like($standby->safe_psql('postgres', "SELECT job_id, uri, rows FROM s3export.copy_to('lake', 'SELECT WHERE false', 'none.csv', on_empty => 'skip')"), qr/^\|\|0$/, 'one without an object');
like(logged('none.csv'), qr/succeeded without an object: 0 rows/, 'has its line too');

my @made = map { $standby->safe_psql('postgres', "SELECT uri FROM s3export.copy_to('lake', 'busy')") } 1, 2;
like($_, qr{/busy-\d{8}T\d{6}Z-[0-9a-f]{16}\.csv$}, 'a name is made without a job') foreach @made;
isnt($made[0], $made[1], 'which is another one each time');

# ---- parallel workers
{
	my ($status, $out, $err) = $standby->psql('postgres', 'SET client_min_messages = debug1; SET parallel_leader_participation = off; SET min_parallel_table_scan_size = 0; '
		  . copy_to('orders', 'parallel.csv'));

	like($err, qr/parallel worker 1 has sent \d+ rows/, 'workers send rows');
	ok(join('', sort split /^/, s3_get("$folder/parallel.csv")) eq join('', sort split /^/, $expected), 'the same');
}

# ---- what must be written cannot be
foreach my $call (q(create_connector('other', bucket => 'b')), q(alter_connector('lake', region => 'eu-west-1')), q(drop_connector('lake')),
	q(set_credentials('lake', access_key_id => 'AKIAXXXXXXXXXXXXXXXX', secret_access_key => 'x')), q(set_identity('AKIAXXXXXXXXXXXXXXXX', 'x')),
	q(grant_usage('lake', 'pg_monitor')), q(revoke_usage('lake', 'pg_monitor')))
{
	my ($function) = $call =~ /^(\w+)/;

	error_like($standby, "SELECT s3export.$call", { sqlstate => '25006', message => "cannot execute s3export.$function() during recovery" }, "$function on a standby");
}
is($standby->safe_psql('postgres', q(SELECT bool_and(ok) FROM s3export.test_credentials('lake'))), 't', 'the test of permissions works');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM s3export.progress'), 0, 'so does the view of progress');

# ---- errors
error_like($standby, copy_to('VALUES (1)', 'small.csv'), { sqlstate => '42710', message => "object \"s3://$S3{BUCKET}/$folder/small.csv\" already exists" }, 'an object in the way');
like(logged('small.csv" failed after .*: object "s3://[^"]*small.csv'), qr/failed after 0 rows, 0 bytes, 0 parts, [0-9.]+ s \(connector "lake", PID \d+\): .* already exists\n.*HINT:  Choose/, 'is in the log');

$scripted->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'UploadPart', key => '.*denied.csv' });
$scripted->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'AbortMultipartUpload', key => '.*denied.csv' });
my $error = sql_error($standby, copy_to('orders', 'denied.csv', 'scripted'));
my ($upload) = map { $_->{upload_id} // $_->{id} } $scripted->uploads('exports');
is($error->{sqlstate}, '28000', 'a part that is refused') or diag(explain($error));
like($error->{detail}, qr/  Upload "\Q$upload\E" could not be aborted and is left in the bucket\.$/, 'with the upload that could not be aborted');
like(logged('denied.csv'), qr/failed after .*: could not upload part.*\n.*DETAIL:  .*Upload "\Q$upload\E" could not be aborted/, 'is in the log');

# ---- keys that are replaced on the primary
{
	my %new = scripted_user($scripted);
	my $run = start(copy_to(paced('orders', 8), 'rotated.csv', 'scripted'));

	poll_until(sub { scalar $scripted->log(operation => 'UploadPart') }, 'a part');
	$scripted->call('clear_log');
	$primary->safe_psql('postgres', "SELECT s3export.set_credentials('scripted', access_key_id => '$new{access_key_id}', secret_access_key => '$new{secret_access_key}', validate => false)");
	like(finish($run), qr/\|20000\|1\|\d+$/, 'an export during which keys are replaced on the primary');
	is((map { $_->{access_key_id} } $scripted->log(operation => 'CompleteMultipartUpload'))[-1], $new{access_key_id}, 'goes on with the new ones');
}

# ---- a conflict with recovery
{
	my $run = start(copy_to(paced('busy', 60), 'conflict.csv'));

	wait_for_rows();
	$standby->append_conf('postgresql.conf', 'max_standby_streaming_delay = 100ms');
	$standby->reload;
	$primary->safe_psql('postgres', $_) foreach 'DELETE FROM busy WHERE id % 2 = 0', 'VACUUM (TRUNCATE off) busy';
	finish($run);
	like($run->{err}, qr/ERROR:  40001: canceling statement due to conflict with recovery\nDETAIL:  .*\nHINT:  .*"max_standby_streaming_delay".*"hot_standby_feedback"/, 'a conflict with recovery has its own error, and a hint');
	like(logged('conflict.csv'), qr/failed after .*: canceling statement due to conflict with recovery\n.*DETAIL:.*\n.*HINT:  .*hot_standby_feedback/, 'is in the log');
	is_deeply([ s3_list("$folder/conflict.csv"), s3_uploads("$folder/conflict.csv") ], [], 'and leaves nothing');
	fault_outcome('a conflict with recovery, on a standby', caller_cell($run->{err}), job_cell($standby, 'conflict.csv'), bucket_cell(undef, undef, scalar s3_uploads("$folder/conflict.csv")));
	is(job_cell($standby, 'conflict.csv'), 'none', 'where there can be no row');
}

# ---- promotion
{
	my $run = start(copy_to(paced('orders', 8), 'promoted.csv'));

	wait_for_rows();
	$standby->promote;
	is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'the standby is promoted');
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_progress_copy'), 1, 'while it exports');
	like(finish($run), qr/^\|.*\|20000\|1\|\d+$/, 'the export ends as it has begun');
	my $object = join '', sort split /^/, s3_get("$folder/promoted.csv");
	my $whole = join '', sort map { my $end = /^id/ ? 'case' : /^\d*00,/ ? '""' : ''; s/\n/,$end\n/r } split /^/, $expected;
	is(scalar(() = $object =~ /\n/g), 20001, 'with all rows');
	is(job_cell($standby, 'promoted.csv'), 'none', 'it has no row, as when it began');
	is_deeply([ s3_uploads("$folder/promoted.csv") ], [], 'and leaves no upload open');
	fault_outcome('a standby is promoted', caller_cell($run->{err}), job_cell($standby, 'promoted.csv'), bucket_cell($object, $whole, scalar s3_uploads("$folder/promoted.csv")));
	like(logged('promoted.csv'), qr/succeeded: 20000 rows/, 'and is in the log');
	like($standby->safe_psql('postgres', copy_to('VALUES (1)', 'after.csv')), qr/^\d+\|/, 'the next one has a job');
	is($standby->safe_psql('postgres', q(SELECT state FROM s3export.jobs WHERE path = 'after.csv')), 'succeeded', 'with its row');
}

keep_secrets($scripted);
$standby->stop;
$primary->stop;
s3_clear($folder);
done_testing();
