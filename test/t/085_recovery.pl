# What a crash leaves behind is settled from the rows of jobs, by the next export
# and by recover(): uploads are aborted, objects that did appear are found by
# their token, and what belongs to another server is not touched.
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
use Time::HiRes qw(time);

my $s3 = scripted_s3();
my $node = s3export_node('main', q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '3s'), 'restart_after_crash = on',
	'wal_level = replica', 'max_wal_senders = 4', 'max_connections = 50');
my %keys = scripted_user($s3);
my $folder = unique_folder();
my $interrupted = '57P02|the export was interrupted|The server stopped, or the uploader ended, before the outcome was recorded.';
my %complete = (match => { operation => 'CompleteMultipartUpload' });

my $rows = 5500;
my $wide = 'SELECT * FROM wide ORDER BY i';

# Rows without end, of which a part is in S3 soon, and few after that.
my $endless = q(SELECT g, repeat(md5(g::text), 60), CASE WHEN g > 5000 THEN pg_sleep(0.1) END FROM generate_series(1, 100000000) g);

$node->safe_psql('postgres', "CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, $rows) i");
my $oracle = copy_oracle($node, $wide, 'HEADER');
create_connector($node, 'lake', at_endpoint($s3), %keys, folder_path => $folder);

# ---- helpers

sub start_export
{
	my ($file, $query, %options) = @_;
	my $messages = '';
	my $handle = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', ($options{node} // $node)->connstr('postgres'),
			'-c', "SELECT rows FROM s3export.copy_to('" . ($options{connector} // 'lake') . "', " . sql_literal($query) . ", '$file'"
			  . ($options{arguments} // '') . ')' ],
		'>', \my $out, '2>', \$messages);

	return ($handle, \$out, \$messages);
}

sub job
{
	my ($file, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM s3export.jobs WHERE uri LIKE '%/$file' ORDER BY job_id DESC LIMIT 1");
}

sub file_of
{
	my ($file, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM s3export.job_files WHERE uri LIKE '%/$file' ORDER BY job_id DESC LIMIT 1");
}

# What recover() says, in short.
sub recover
{
	my (%options) = @_;

	local $ENV{PGUSER} = $options{user} if defined $options{user};
	return masked(($options{node} // $node)->safe_psql($options{dbname} // 'postgres',
		q(SELECT regexp_replace(uri, '.*/', ''), action, detail FROM s3export.recover() ORDER BY job_id)));
}

sub object
{
	return $s3->object('exports', "$folder/$_[0]");
}

sub uploads_of
{
	my ($file) = @_;

	return map { $_->{upload_id} } grep { $_->{key} eq "$folder/$file" } $s3->uploads('exports');
}

sub wait_until_up
{
	poll_until(sub { server_answers($node) }, 'the server');
	return;
}

my %crash = (
	'the uploader is killed' => sub { kill 'KILL', job($_[0], 'uploader_pid') },
	'the leader is killed' => sub { kill 'KILL', job($_[0], 'leader_pid') },
	'another backend is killed' => sub { kill 'KILL', $node->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(900)')) },
	'the postmaster is killed' => sub { kill_server(); $_[1]->finish; start_again() },
	'the server is stopped at once' => sub { $node->stop('immediate'); $node->start });

sub kill_server
{
	my ($pid) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');

	$node->kill9;
	poll_until(sub { !kill 0, $pid }, 'the end of the postmaster');
	return;
}

# Its last processes have gone when the shared memory is free.
sub start_again
{
	poll_until(sub { $node->start(fail_ok => 1) }, 'the shared memory of a server that was killed');
	return;
}

sub crash
{
	my ($how, $file, $handle) = @_;
	my $bystander = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT pg_sleep(900)' ], '>', \my $out, '2>', \my $error);

	poll_until(sub { $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(900)')) == 1 }, 'a bystander');
	$crash{$how}->($file, $handle);
	$handle->finish;
	$bystander->finish;
	wait_until_up();
	return;
}

# Until an upload of this file is open and its row knows.
sub wait_for_upload
{
	my ($file) = @_;

	poll_until(sub { job($file, 'open_uploads') eq '1' }, "the row of $file");
	return;
}

# An export that stands still while its object is made, or before.
sub hold_last
{
	my ($file, $when, $operation, $query, %options) = @_;
	my $since = $s3->log;
	my ($handle, $out, $messages);

	$s3->call('add_fault', do => 'stall', when => $when, match => { operation => $operation });
	($handle, $out, $messages) = start_export($file, $query, %options);
	poll_until(sub { job($file, 'state') eq 'completing' }, "the end of $file");
	poll_until(sub { grep { $_->{n} >= $since } $s3->log(operation => $operation) }, "$operation of $file");
	poll_until(sub { $when eq 'before' || defined object($file) }, "the object $file");
	return ($handle, $out, $messages);
}

# ---- a crash while parts are sent
foreach my $how (sort keys %crash)
{
	my $file = ($how =~ s/\W+/_/gr) . '.csv';
	my ($handle, undef, $messages) = start_export($file, $endless);

	wait_for_upload($file);
	crash($how, $file, $handle);
	is(join(',', uploads_of($file)), file_of($file, 'upload_id'), "$how: its row knows the upload that is left");
	is(job($file, 'state'), 'running', "$how: and says that it runs");
	is(recover(), "$file|aborted|Its upload was aborted.", "$how: recover()");
	is(job($file, 'state, open_uploads, finished_at IS NOT NULL, recovered_at IS NOT NULL, error_code, error_message, error_detail'),
		"failed|0|t|t|$interrupted  \"s3://exports/$folder/$file\": Its upload was aborted.", "$how: the job");
	is(file_of($file, 'state, upload_id IS NULL'), 'aborted|t', "$how: the file");
	is(scalar(uploads_of($file)), 0, "$how: nothing is left in the bucket");
	is(object($file), undef, "$how: no object");
	is(recover(), '', "$how: once is enough");
	fault_outcome("$how while parts are sent", caller_cell($$messages), job_cell($node, $file), scripted_cell($s3, "$folder/$file", undef));
}

# ---- a crash while the object is made: it is there, or not
foreach my $how (sort keys %crash)
{
	foreach my $case ([ 'after', 'made' ], [ 'before', 'not made' ])
	{
		my ($when, $what) = @$case;
		my $file = ($how =~ s/\W+/_/gr) . "_$when.csv";
		my ($handle, undef, $messages) = hold_last($file, $when, 'CompleteMultipartUpload', $wide);

		$what = "$how while the object is $what";
		crash($how, $file, $handle);
		$s3->call('clear_faults');
		is(job($file, 'state'), 'completing', "$what: the job");
		if ($when eq 'after')
		{
			is(recover(), "$file|completed|The object is in place, with the token and the size of this job's.", "$what: recover()");
			is(job($file, 'state, rows, files, bytes, error_code IS NULL, error_message IS NULL, error_detail IS NULL, recovered_at IS NOT NULL'),
				"succeeded|$rows|1|" . length($oracle) . '|t|t|t|t', "$what: the job has succeeded");
			like(file_of($file, 'state, etag'), qr/^done\|"[0-9a-f]+-2"$/, "$what: the file has its ETag");
			ok(object($file) eq $oracle, "$what: the object is whole");
		}
		else
		{
			is(recover(), "$file|aborted|There is no such object.  Its upload was aborted.", "$what: recover()");
			is(job($file, 'state, error_code, files'), 'failed|57P02|0', "$what: the job has failed");
			is(object($file), undef, "$what: no object");
		}
		is(scalar(uploads_of($file)), 0, "$what: nothing is left in the bucket");
		fault_outcome($what =~ s/while the object is (.*)/while the object is completed, and $1/r, caller_cell($$messages), job_cell($node, $file),
			scripted_cell($s3, "$folder/$file", $oracle));
	}
}

# ---- one PutObject
foreach my $case ([ 'after', 'succeeded|2' ], [ 'before', 'failed|0' ])
{
	my ($when, $wanted) = @$case;
	my ($handle) = hold_last("put_$when.csv", $when, 'PutObject', 'VALUES (1), (2)');

	crash('the uploader is killed', "put_$when.csv", $handle);
	$s3->call('clear_faults');
	recover();
	is(job("put_$when.csv", 'state, rows'), $wanted, "PutObject, crash $when the object is made: the job");
	is(object("put_$when.csv"), $when eq 'after' ? "column1\n1\n2\n" : undef, "PutObject, crash $when the object is made: the object");
}

# ---- a manifest of no files
{
	my $handle;

	$s3->call('add_fault', do => 'stall', when => 'after', match => { operation => 'PutObject' });
	($handle) = start_export('none/f.csv', 'SELECT 1 AS a, 2 AS b WHERE false', arguments => q(, partition_by => 'b', manifest => true));
	poll_until(sub { defined object('none/_f.manifest.json') }, 'the manifest of no files');
	crash('the uploader is killed', 'none/', $handle);
	$s3->call('clear_faults');
	is(recover(), "_f.manifest.json|completed|The object is in place, with the token and the size of this job's.", 'a manifest of no files: recover()');
	is(job('none/', 'state, rows, files, bytes'), 'succeeded|0|0|0', 'a manifest of no files: the job has succeeded');
}

# ---- the next export settles what an earlier one has left, and logs it
{
	my ($handle) = start_export('passing.csv', $endless);
	my $logged = -s $node->logfile;

	wait_for_upload('passing.csv');
	crash('the uploader is killed', 'passing.csv', $handle);
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'next.csv'))), 1, 'in passing: the next export');
	is(job('passing.csv', 'state, open_uploads, error_code'), 'failed|0|57P02', 'in passing: the job that crashed');
	is(scalar($s3->uploads('exports')), 0, 'in passing: nothing is left in the bucket');
	like(slurp_file($node->logfile, $logged), qr/LOG:  recovery of job \d+: aborted\n.*DETAIL:  "s3:\/\/exports\/\Q$folder\E\/passing\.csv": Its upload was aborted\./,
		'in passing: the log');

	($handle) = hold_last('again.csv', 'after', 'CompleteMultipartUpload', $wide);
	crash('the uploader is killed', 'again.csv', $handle);
	$s3->call('clear_faults');
	error_like($node, q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'again.csv')), { sqlstate => '42710' },
		'in passing: the same path again finds the object');
	is($node->safe_psql('postgres', q(SELECT string_agg(state, ',' ORDER BY job_id) FROM s3export.jobs WHERE uri LIKE '%/again.csv')), 'succeeded,failed',
		'in passing: and that it was the export that crashed');
}

# It must not fail the export, nor hold it up.
{
	my ($handle) = start_export('stuck.csv', $endless);
	my $since;
	my $started;

	wait_for_upload('stuck.csv');
	crash('the uploader is killed', 'stuck.csv', $handle);
	$s3->call('add_fault', do => 'stall', match => { operation => 'AbortMultipartUpload' }, times => undef);
	$started = time;
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'not_stuck.csv'))), 1, 'S3 does not answer to an abort: the next export');
	cmp_ok(time - $started, '<', 9, 'S3 does not answer to an abort: is not held up');
	is(job('stuck.csv', 'state, open_uploads'), 'failed|1', 'S3 does not answer to an abort: the upload is left');
	like(job('stuck.csv', 'error_detail'), qr/No answer came to s3:AbortMultipartUpload: .*  Its upload is "\Q@{[ uploads_of('stuck.csv') ]}\E"\.$/,
		'S3 does not answer to an abort: and named');
	$since = $s3->log;
	$node->safe_psql('postgres', q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'not_stuck_again.csv')));
	is(scalar(grep { $_->{n} >= $since } $s3->log(operation => 'AbortMultipartUpload')), 0, 'S3 does not answer to an abort: not asked again so soon');
	$s3->call('clear_faults');
	is(recover(), 'stuck.csv|aborted|Its upload was aborted.', 'S3 does not answer to an abort: later');
	is(job('stuck.csv', 'state, open_uploads, error_detail LIKE \'%Its upload was aborted.\''), 'failed|0|t', 'S3 does not answer to an abort: the job in the end');
}

# ---- what is there is not ours
{
	my $theirs = 'x' x length $oracle;
	my $handle;

	$s3->call('put_object', bucket => 'exports', key => "$folder/old.csv", body => $theirs);
	($handle) = hold_last('old.csv', 'before', 'CompleteMultipartUpload', $wide, arguments => q(, if_exists => 'overwrite'));
	crash('the uploader is killed', 'old.csv', $handle);
	$s3->call('clear_faults');
	is(recover(), q(old.csv|aborted|The object there is not this job's.  Its upload was aborted.), 'an older object: recover()');
	is(job('old.csv', 'state'), 'failed', 'an older object: is not taken for ours');
	ok(object('old.csv') eq $theirs, 'an older object: stays');
	is(scalar($s3->uploads('exports')), 0, 'an older object: nothing is left in the bucket');
}

# ---- who cannot look does not know
{
	my ($handle) = hold_last('blind.csv', 'after', 'CompleteMultipartUpload', $wide);
	my $unknown = 'Its outcome is unknown.  S3 answered Forbidden (HTTP status 403) to s3:GetObject.';

	crash('the uploader is killed', 'blind.csv', $handle);
	$s3->call('clear_faults');
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'HeadObject' }, times => undef);
	like(recover(), qr/^blind\.csv\|left\|\Q$unknown\E .* Its upload is "[^"]+"\.$/, 'HEAD is refused: recover()');
	is(job('blind.csv', 'state, error_code, finished_at IS NULL, recovered_at IS NULL'), 'completing|57P02|t|t', 'HEAD is refused: the job stays');
	like(job('blind.csv', 'error_detail'), qr/\Q$unknown\E/, 'HEAD is refused: and says why');
	$s3->call('clear_faults');
	like(recover(), qr/^blind\.csv\|completed\|/, 'HEAD is refused: later');
	is(job('blind.csv', 'state, error_code IS NULL'), 'succeeded|t', 'HEAD is refused: it had succeeded');
}

# An export that told its caller that it does not know has its row settled, too.
{
	my %blind = scripted_user($s3, policy => allow(qw(s3:ListBucket s3:GetBucketLocation s3:PutObject s3:AbortMultipartUpload)));

	create_connector($node, 'blind', at_endpoint($s3), %blind, folder_path => "$folder/blind", validate => \'false');
	$s3->call('add_fault', do => 'lost_reply', forget => ScriptedS3::true, %complete);
	error_like($node, "SELECT s3export.copy_to('blind', " . sql_literal($wide) . ", 'doubt.csv')",
		{ sqlstate => '38000', detail => qr/it may or may not appear as/ }, 'an outcome in doubt: the error');
	is(job('doubt.csv', 'state, open_uploads') . ' ' . file_of('doubt.csv', 'state'), 'failed|0 completing', 'an outcome in doubt: the rows');
	like(recover(), qr/^doubt\.csv\|left\|Its outcome is unknown\./, 'an outcome in doubt: still');
	like(job('doubt.csv', 'state, error_detail'), qr/^failed\|S3 answered NoSuchUpload .* may not appear as "[^"]+"\.$/, 'an outcome in doubt: the error stays');
	$s3->call('set_policy', arn => (grep { $_->{key} eq "$folder/blind/doubt.csv" } $s3->log(operation => 'HeadObject'))[-1]{principal}, policy => undef);
	like(recover(), qr/^doubt\.csv\|completed\|/, 'an outcome in doubt: until somebody may look');
	is(job('doubt.csv', 'state, rows, error_code IS NULL'), "succeeded|$rows|t", 'an outcome in doubt: the job');
}

# ---- two at a time do not meet
{
	my ($handle) = start_export('once.csv', $endless);
	my ($first, $out, $since);

	wait_for_upload('once.csv');
	is(recover(), '', 'a job that runs is let be');
	is(scalar(uploads_of('once.csv')), 1, 'and so is its upload');
	crash('the uploader is killed', 'once.csv', $handle);
	$since = $s3->log;
	$s3->call('add_fault', do => 'stall', match => { operation => 'AbortMultipartUpload' });
	$first = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT action FROM s3export.recover()' ], '>', \$out);
	poll_until(sub { grep { $_->{n} >= $since } $s3->log(operation => 'AbortMultipartUpload') }, 'the abort');
	is(recover(), '', 'recover() beside another one leaves the job to it');
	$s3->call('release');
	$first->finish;
	is($out, "aborted\n", 'and that one does it');
	$s3->call('clear_faults');
	is(scalar(grep { $_->{n} >= $since } $s3->log(operation => 'AbortMultipartUpload')), 1, 'once');
}

# ---- a role's session may touch one key only
{
	my $arn = scripted_role($s3, 'exporter');
	my %base = scripted_user($s3);
	my @assumed;
	my $since;

	$node->safe_psql('postgres', "SELECT s3export.set_identity('$base{access_key_id}', '$base{secret_access_key}')");
	create_connector($node, 'role', at_endpoint($s3), folder_path => "$folder/role", role_arn => $arn);
	my ($handle) = start_export('one.csv', $endless, connector => 'role');
	wait_for_upload('one.csv');
	crash('the uploader is killed', 'one.csv', $handle);
	$since = $s3->log;
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('role', 'VALUES (1)', 'two.csv'))), 1, 'a role: the next export');
	is(job('one.csv', 'state, open_uploads'), 'failed|0', 'a role: the job that crashed');
	@assumed = grep { $_->{n} >= $since } $s3->log(operation => 'AssumeRole');
	is(join(' ', sort map { $_->{form}{Policy} =~ m{/role/(\w+\.csv)"} ? $1 : '?' } @assumed), 'one.csv two.csv', 'a role: each with a session of its own');
	is(scalar($s3->uploads('exports')), 0, 'a role: nothing is left in the bucket');
}

# ---- whose jobs
{
	my ($handle) = start_export('mine.csv', $endless);

	$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN IN ROLE alice');
	wait_for_upload('mine.csv');
	crash('the uploader is killed', 'mine.csv', $handle);
	is(recover(user => 'bob'), '', 'recover() of a role without jobs');
	$node->safe_psql('postgres', "UPDATE s3export.job SET owner = 'alice' WHERE uri LIKE '%/mine.csv'");
	is(recover(user => 'bob'), '', 'is not for the jobs of others');
	is(recover(user => 'carol'), 'mine.csv|aborted|Its upload was aborted.', 'but for those of the roles it is a member of');
}

# ---- a connector that is no more, leads elsewhere, or has lost its secret
{
	my @left;

	foreach my $case ([ 'gone', q(SELECT s3export.drop_connector('gone')), 'Connector "gone" exists no more.' ],
		[ 'moved', q(SELECT s3export.alter_connector('moved', bucket => 'other', validate => false)), 'Connector "moved" leads to another place now.' ],
		[ 'bare', q(DELETE FROM s3export.secret s USING s3export.connector c WHERE c.name = 'bare' AND s.credential_id = c.credential_id),
			'It could not be settled: credentials of connector "bare" are missing.' ])
	{
		my ($name, $sql, $why) = @$case;
		my $handle;

		create_connector($node, $name, at_endpoint($s3), %keys, folder_path => "$folder/$name");
		($handle) = start_export("$name.csv", $endless, connector => $name);
		wait_for_upload("$name.csv");
		crash('the uploader is killed', "$name.csv", $handle);
		$node->safe_psql('postgres', $sql);
		push @left, [ $name, $why ];
	}
	my %said = map { /^(\w+)\.csv\|(.*)/ ? ($1 => $2) : () } split /\n/, recover();
	foreach my $case (@left)
	{
		my ($name, $why) = @$case;
		my ($upload) = uploads_of("$name/$name.csv");

		like($said{$name}, qr/^left\|\Q$why\E.*  Its upload is "\Q$upload\E"\.$/, "connector $name: recover()");
		like(job("$name.csv", 'state, open_uploads, error_detail'), qr/^failed\|1\|.*\Q$why\E.*\Q$upload\E/, "connector $name: the job");
		$s3->call('remove_upload', bucket => 'exports', upload_id => $upload);
	}
	$node->safe_psql('postgres', q(DELETE FROM s3export.job WHERE connector IN ('gone', 'moved', 'bare')));
}

# ---- one running export per connector and path
{
	my ($handle, $out, $messages) = start_export('busy.csv', $endless);
	my $started;
	my $job;

	wait_for_upload('busy.csv');
	$job = job('busy.csv', 'job_id');
	error_like($node, q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'busy.csv')),
		{ sqlstate => '55006', message => "another export writes to \"s3://exports/$folder/busy.csv\"", detail => "It is job $job.",
			hint => 'Wait until it has ended, or choose another path.' }, 'the same path: the error');
	is($node->safe_psql('postgres', q(SELECT state, error_code FROM s3export.jobs WHERE uri LIKE '%/busy.csv' ORDER BY job_id DESC LIMIT 1)), 'failed|55006', 'the same path: the job');
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'idle.csv'))), 1, 'another path');
	create_connector($node, 'other', at_endpoint($s3), %keys, folder_path => "$folder/other");
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('other', 'VALUES (1)', 'busy.csv'))), 1, 'the same path of another connector');
	is(scalar(uploads_of('busy.csv')), 1, 'and the export goes on');

	# Its cleaning up is waited for.
	$s3->call('add_fault', do => 'stall', seconds => 1, match => { operation => 'AbortMultipartUpload' });
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE job_id = $job");
	$handle->finish;
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'busy.csv'))), 1, 'the path of an export that was just cancelled');
	$s3->call('clear_faults');

	($handle) = start_export('killed.csv', $endless);
	wait_for_upload('killed.csv');
	crash('the uploader is killed', 'killed.csv', $handle);
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'killed.csv'))), 1, 'the path of an export that was killed');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')), 0, 'no lease stays');
}

# ---- copies: they let the uploads of the original be
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION wait_for_go() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	WHILE (pg_stat_file('go', true)).size IS NULL LOOP PERFORM pg_sleep(0.05); END LOOP;
	RETURN 'go';
END $$
SQL
{
	my ($handle, $out, $messages) = start_export('original.csv', 'SELECT g, repeat(md5(g::text), 60), CASE WHEN g = 6000 THEN wait_for_go() END FROM generate_series(1, 6000) g');
	my $clone = PostgreSQL::Test::Cluster->new('clone');
	my $left = qr/It belongs to another server or database, whose uploads were not touched\./;

	wait_for_upload('original.csv');
	$node->backup('copy', backup_options => [ '--checkpoint=fast' ]);
	$clone->init_from_backup($node, 'copy');
	chmod 0600, $clone->data_dir . '/s3export.key';
	$clone->start;
	is($clone->safe_psql('postgres', q(SELECT state FROM s3export.jobs WHERE uri LIKE '%/original.csv')), 'running', 'a copy of the server: has the row of a running job');
	is($clone->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('lake', 'VALUES (1)', 'clone.csv'))), 1, 'a copy of the server: its own export');
	is($clone->safe_psql('postgres', q(SELECT state, error_code FROM s3export.jobs WHERE uri LIKE '%/original.csv')), 'failed|57P02', 'a copy of the server: the job is none of its');
	like($clone->safe_psql('postgres', q(SELECT error_detail FROM s3export.jobs WHERE uri LIKE '%/original.csv')), qr/^The job belongs to another server/, 'a copy of the server: and says why');
	is(recover(node => $clone), '', 'a copy of the server: recover() has nothing to do');
	is(scalar(uploads_of('original.csv')), 1, 'a copy of the server: the upload of the original is still there');
	append_to_file($node->data_dir . '/go', "\n");
	$handle->finish;
	is("$$out$$messages", "6000\n", 'the original goes on');
	is(job('original.csv', 'state, rows'), 'succeeded|6000', 'and ends well');
	$clone->stop;

	# By recover(), and in a copy of the database.
	($handle) = start_export('template.csv', $endless);
	wait_for_upload('template.csv');
	crash('the uploader is killed', 'template.csv', $handle);
	$node->safe_psql('template1', 'CREATE DATABASE twin TEMPLATE postgres');
	like(recover(dbname => 'twin'), qr/^template\.csv\|failed\|$left$/, 'a copy of the database: recover()');
	is(recover(dbname => 'twin'), '', 'a copy of the database: once');
	is(scalar(uploads_of('template.csv')), 1, 'a copy of the database: the upload is still there');
	is(recover(), 'template.csv|aborted|Its upload was aborted.', 'the original aborts it');

	# A server that was restored, or promoted, where it was.
	($handle) = start_export('restored.csv', $endless);
	wait_for_upload('restored.csv');
	$node->stop('immediate');
	$handle->finish;
	$node->set_standby_mode;
	$node->start;
	$node->promote;
	like(recover(), qr/^restored\.csv\|failed\|$left$/, 'another timeline: recover()');
	my ($upload) = uploads_of('restored.csv');
	ok($upload, 'another timeline: the upload is still there');
	is(file_of('restored.csv', 'upload_id'), $upload, 'another timeline: and named');
	$s3->call('remove_upload', bucket => 'exports', upload_id => $upload);
}

# ---- nothing was sent
{
	my ($handle) = start_export('nothing.csv', 'SELECT pg_sleep(100)');

	poll_until(sub { job('nothing.csv', 'state') eq 'running' && $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep')) == 1 }, 'the query');
	crash('the leader is killed', 'nothing.csv', $handle);
	is(recover(), 'nothing.csv|failed|No file of it was under way.', 'nothing sent: recover()');
	is(job('nothing.csv', 'state, error_code, error_message, error_detail'), "failed|$interrupted  No file of it was under way.", 'nothing sent: the job');
}

# ---- retention
{
	my $old = q(finished_at = now() - interval '31 days', started_at = now() - interval '31 days');
	my ($handle) = start_export('owing.csv', $endless);
	my $count = q(SELECT count(*) FROM s3export.jobs WHERE finished_at < now() - interval '30 days');

	wait_for_upload('owing.csv');
	crash('the uploader is killed', 'owing.csv', $handle);
	$s3->call('add_fault', do => 'error', code => 'AccessDenied', match => { operation => 'AbortMultipartUpload' }, times => undef);
	recover();
	$node->safe_psql('postgres', "UPDATE s3export.job SET $old");
	$node->safe_psql('postgres', q(INSERT INTO s3export.job (job_id, owner, connector_id, connector, source, system_identifier, data_directory, database, timeline, state, finished_at)
		SELECT 100000 + i, owner, connector_id, connector, source, system_identifier, data_directory, database, timeline, 'succeeded', finished_at
		FROM s3export.job, generate_series(1, 1500) i WHERE uri LIKE '%/owing.csv'));
	$node->safe_psql('postgres', q(LOAD 's3export'; ALTER SYSTEM SET s3export.job_retention = -1));
	$node->restart;
	recover();
	cmp_ok($node->safe_psql('postgres', $count), '>', 1500, 'retention for ever');
	$node->safe_psql('postgres', q(LOAD 's3export'; ALTER SYSTEM RESET s3export.job_retention));
	$node->restart;
	is($node->safe_psql('postgres', q(LOAD 's3export'; SHOW s3export.job_retention)), '30d', 'retention: its default');
	$node->safe_psql('postgres', q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'keeps.csv')));
	# They go when the export has been told of its end.
	$node->poll_query_until('postgres', "SELECT ($count) < 1500");
	cmp_ok($node->safe_psql('postgres', $count), '>', 500, 'retention: not all at once');
	$node->safe_psql('postgres', q(SELECT s3export.copy_to('lake', 'VALUES (1)', 'keeps too.csv')));
	$node->poll_query_until('postgres', "SELECT ($count) = 1");
	is($node->safe_psql('postgres', $count), 1, 'retention: what is old and owes nothing goes');
	is(job('owing.csv', 'state, open_uploads') . ' ' . job('keeps.csv', 'state'), 'failed|1 succeeded', 'retention: the rest stays');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM s3export.job_file f WHERE NOT EXISTS (SELECT FROM s3export.job j WHERE j.job_id = f.job_id)'), 0, 'retention: files go with their jobs');
	$s3->call('clear_faults');
	like(recover(), qr/^owing\.csv\|aborted\|/, 'retention: until it is settled');
	is($node->safe_psql('postgres', $count), 0, 'retention: then it goes, too');
}

is(scalar($s3->uploads('exports')), 0, 'in the end nothing is left in the bucket');

$node->stop;
$node->set_standby_mode;
$node->start;
error_like($node, 'SELECT s3export.recover()', { sqlstate => '25006', message => 'cannot execute s3export.recover() during recovery' }, 'recover() on a standby');

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
