# A server that fails in every way it can: an export ends with the object that
# COPY would have written, or with an error and without an object, and its row
# says which.
use strict;
use warnings;
use lib 'test/lib';
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(time);

my $s3 = scripted_s3();
my $node = s3export_node('main', q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '20s'), q(s3export.stall_timeout = '1s'));

# Of a time that has come also when the server's clock is put back.
$s3->call('clock', offset => -3600);
my %keys = scripted_user($s3);
$s3->call('clock', offset => 0);

my $folder = unique_folder();
my $files = 0;
my $query = 'SELECT * FROM wide ORDER BY i';

$node->safe_psql('postgres', q(CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, 5500) i));
my $oracle = copy_oracle($node, $query, 'HEADER');
is(int(length($oracle) / (5 * 1024 * 1024)), 1, 'the export has two parts');
create_connector($node, 'lake', at_endpoint($s3), %keys, folder_path => $folder);

# ---- helpers

sub add_faults
{
	$s3->call('add_fault', %$_) foreach @_;
	return;
}

sub copy_sql
{
	my ($file, %options) = @_;

	return ($options{set} // '') . "SELECT rows FROM s3export.copy_to('" . ($options{connector} // 'lake') . "', "
	  . sql_literal($options{query} // $query) . ", '$file'" . ($options{arguments} // '') . ')';
}

sub object
{
	return $s3->object('exports', "$folder/$_[0]");
}

# An export that meets these faults arrives whole; returns what was asked of S3.
sub arrives
{
	my ($what, $faults, %options) = @_;
	my $file = 'connector' . ++$files . '.csv';
	my $since = $s3->log;
	my ($rows, $error);

	add_faults(@$faults);
	(undef, $rows, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\n" . copy_sql($file, %options));
	is($rows, $options{rows} // 5500, "$what: the export succeeds") or diag($error);
	ok((object($file) // '') eq ($options{bytes} // $oracle), "$what: its bytes are those of COPY");
	is(job_text($node, $file), "succeeded\n", "$what: the job row");
	is(scalar($s3->uploads('exports')), 0, "$what: no upload stays open");
	is(scalar(grep { $_->{used} == 0 } @{ $s3->call('list_faults')->{faults} }), 0, "$what: it did happen");
	$s3->call('clear_faults');
	fault_outcome($what, caller_cell($error), job_cell($node, $file), scripted_cell($s3, "$folder/$file", $options{bytes} // $oracle))
	  if @$faults || $options{stated};
	return $s3->log(since => $since);
}

# Without the part that failed, how often it was sent, and what broke the connection.
sub loosened
{
	my ($text) = @_;

	return $text =~ s/\bpart \d+ of/part N of/r =~ s/\b\d+ attempts\./some attempts./r
	  =~ s/(?<=s3:PutObject: )(Recv|Send) failure: (Connection reset by peer|Broken pipe)/broken/r;
}

# An export that meets these faults fails like this, and leaves nothing.
sub fails
{
	my ($what, $faults, $expected, %options) = @_;
	my $file = 'connector' . ++$files . '.csv';
	my $since = $s3->log;
	my $error;
	my $shown = $options{loose} ? \&loosened : sub { return $_[0] };

	$s3->call('put_object', bucket => 'exports', key => "$folder/$file", body => $options{old}) if defined $options{old};
	add_faults(@$faults);
	$error = error_text($node, copy_sql($file, %options));
	is($shown->($error), $expected, "$what: the error");
	is($shown->(job_text($node, $file)), 'failed' . ($options{left} ? ', upload left' : '') . "\n$expected", "$what: the job row");
	is(object($file), $options{old}, "$what: no object appears") unless $options{appears};
	is(scalar($s3->uploads('exports')), $options{left} // 0, "$what: open uploads");
	is($node->safe_psql('postgres', "SELECT upload_id FROM s3export.job_files WHERE uri LIKE '%/$file'"), ($s3->uploads('exports'))[0]{upload_id},
		"$what: the upload that is left is named in the job row") if $options{left};
	is(scalar(grep { $_->{used} == 0 } @{ $s3->call('list_faults')->{faults} }), 0, "$what: it did happen");
	$s3->call('clear_faults');
	fault_outcome($what, caller_cell($error), job_cell($node, $file),
		scripted_cell($s3, join('/', $folder, $options{connector} // (), $file), $oracle));
	is($node->safe_psql('postgres', copy_sql("after $file", query => 'VALUES (1)')), 1, "$what: the server goes on");
	is(scalar($s3->uploads('exports')), 0, "$what: and removes the upload that was left") if $options{left};
	return $s3->log(since => $since);
}

sub count
{
	my ($operation, @log) = @_;

	return scalar(grep { $_->{operation} eq $operation } @log);
}

my %complete = (match => { operation => 'CompleteMultipartUpload' });
my %part = (match => { operation => 'UploadPart', part => 2 });
my %create = (match => { operation => 'CreateMultipartUpload' });
my $overwrite = q(, if_exists => 'overwrite');
my @log;

# ---- how an export ought to go
@log = arrives('no fault', []);
is_deeply([ map { $_->{operation} } @log ],
	[ 'GetObject', 'CreateMultipartUpload', ('UploadPart') x 2, 'CompleteMultipartUpload' ], 'no fault: no request too many');

# ---- Complete
arrives('Complete answers 200 with an error', [ { do => 'error_200', %complete } ]);
arrives('Complete answers 200 with an error, and is done', [ { do => 'error_200', when => 'after', %complete } ]);
arrives('Complete sends white space for longer than a transfer may stall', [ { do => 'trickle', seconds => 4, interval => 1.5, %complete } ]);
arrives('Complete sends white space after the XML declaration', [ { do => 'trickle', seconds => 1, declaration_first => ScriptedS3::true, %complete } ]);
arrives('Complete sends white space, and an error', [ { do => 'trickle', seconds => 1, then => 'error', %complete } ]);
arrives('Complete sends white space, and hangs up', [ { do => 'trickle', seconds => 1, then => 'close', %complete } ]);
arrives('Complete sends half of the XML', [ { do => 'trickle', seconds => 0, then => 'truncate', %complete } ]);
arrives('Complete sends half of the XML as if it were all', [ { do => 'truncate', framed => ScriptedS3::true, %complete } ]);
arrives('Complete sends half of the XML and hangs up', [ { do => 'truncate', %complete } ]);
fails('Complete answers 200 with a refusal', [ { do => 'error_200', code => 'AccessDenied', times => undef, %complete } ], <<'TEXT');
ERROR:  28000: could not complete upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered AccessDenied (HTTP status 200) to s3:PutObject: Access Denied. Request ID ID, 1 attempt.
HINT:  Check that the policies of the user or role and of the bucket allow s3:PutObject on "arn:aws:s3:::exports/FOLDER/*" to the owner of the access key. A policy takes up to some minutes to become effective.
TEXT
arrives('Complete sends nothing', [ { do => 'truncate', framed => ScriptedS3::true, at => 0, %complete } ]);
arrives('Complete is overloaded', [ { do => 'slow_down', times => 2, %complete } ]);
arrives('the answer of Complete is lost', [ { do => 'lost_reply', %complete } ]);

@log = arrives('the answer of Complete is lost, and the upload forgotten', [ { do => 'lost_reply', forget => ScriptedS3::true, %complete } ]);
is(count('HeadObject', @log), 1, 'the answer of Complete is lost, and the upload forgotten: our object is recognised');
arrives('the answer of Complete is lost, and the upload forgotten, where an object is overwritten', [ { do => 'lost_reply', forget => ScriptedS3::true, %complete } ], arguments => $overwrite);

# An older object of that name is not ours, be it of the same size.
my $gone = <<'TEXT';
ERROR:  38000: could not complete upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered NoSuchUpload (HTTP status 404) to s3:PutObject: The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed. Request ID ID, 1 attempt.
HINT:  The upload was aborted by somebody else. If the bucket has a lifecycle rule AbortIncompleteMultipartUpload, it must allow for the time that an export takes.
TEXT
@log = fails('the upload is gone, and an older object there',
	[ { do => 'close', when => 'before', %complete }, { do => 'error', code => 'NoSuchUpload', skip => 1, %complete } ], $gone,
	old => 'x' x length $oracle, arguments => $overwrite);
is(count('HeadObject', @log), 1, 'the upload is gone, and an older object there: looked at');

# Who cannot look does not know.
{
	my %blind = scripted_user($s3, policy => allow(qw(s3:ListBucket s3:GetBucketLocation s3:PutObject s3:AbortMultipartUpload)));

	create_connector($node, 'blind', at_endpoint($s3), %blind, folder_path => "$folder/blind", validate => \'false');
	fails('the answer of Complete is lost, and nobody may look', [ { do => 'lost_reply', forget => ScriptedS3::true, %complete } ],
		$gone =~ s/(?<=attempt\.)$/  The object had been sent when this happened: it may or may not appear as "s3:\/\/exports\/FOLDER\/FILE.csv"./mr
		  =~ s{FOLDER/FILE}{FOLDER/blind/FILE}gr, connector => 'blind', appears => 1);
	ok($s3->object('exports', "$folder/blind/connector$files.csv") eq $oracle, 'and it has appeared');
}

# ---- PutObject
my %put = (match => { operation => 'PutObject' });
my @small = (query => 'VALUES (1), (2)', rows => 2, bytes => "column1\n1\n2\n");
@log = arrives('the answer of PutObject is lost', [ { do => 'lost_reply', %put } ], @small);
is_deeply([ map { "$_->{operation} $_->{status}" } grep { defined $_->{status} } @log ], [ 'GetObject 404', 'PutObject 412', 'HeadObject 200' ],
	'the answer of PutObject is lost: our object is not taken for one in the way');
arrives('the answer of PutObject is lost where it overwrites', [ { do => 'lost_reply', %put } ], @small, arguments => $overwrite);
arrives('PutObject is answered by a portal that takes anything', [ { do => 'answer', status => 200, headers => { 'Content-Type' => 'text/html' }, body => '<html><body>Welcome</body></html>', %put } ], @small);
arrives('PutObject has no ETag', [ { do => 'no_etag', %put } ], @small);
arrives('PutObject is reset in mid-body', [ { do => 'reset', when => 'body', %put } ], @small);
arrives('PutObject meets another writer', [ { do => 'error', code => 'ConditionalRequestConflict', %put } ], @small);
{
	my $file = "$folder/race.csv";
	my $error = '';
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', 'VERBOSITY=verbose',
			'-c', copy_sql('race.csv', query => 'SELECT pg_sleep(2)') ], '>', \my $out, '2>', \$error);

	poll_until(sub { grep { ($_->{key} // '') eq $file } $s3->log(operation => 'GetObject') }, 'the look at race.csv');
	$s3->call('put_object', bucket => 'exports', key => $file, body => 'theirs');
	$handle->finish;
	like($error, qr/^ERROR:  42710: object "s3:\/\/exports\/\Q$file\E" already exists$/m, 'an object appears while the query runs: the error');
	is($s3->object('exports', $file), 'theirs', 'an object appears while the query runs: it stays');
	fault_outcome('an object of that name appears while the query runs', caller_cell($error), job_cell($node, 'race.csv'), scripted_cell($s3, $file, undef));
}

# ---- parts
@log = arrives('a part meets SlowDown three times', [ { do => 'slow_down', times => 3, %part } ]);
is(count('UploadPart', @log), 5, 'a part meets SlowDown three times: the other is sent once');
arrives('a part is reset in mid-body', [ { do => 'reset', when => 'body', times => 2, %part } ]);
arrives('the answer to a part is lost', [ { do => 'lost_reply', %part } ]);
arrives('a part times out', [ { do => 'request_timeout', %part } ]);
arrives('a part has no ETag', [ { do => 'no_etag', %part } ]);
arrives('a part meets an error in HTML', [ { do => 'html_error', %part } ]);
arrives('a part arrives damaged', [ { do => 'bad_digest', %part } ]);
arrives('a part meets one fault after the other', [ { do => 'internal_error', %part }, { do => 'reset', skip => 1, %part } ]);
@log = arrives('a part stalls', [ { do => 'stall', when => 'body', %part } ]);
is(scalar(grep { ($_->{ended} // '') =~ /peer/ } @log), 1, 'a part stalls: it is given up');

@log = fails('parts arrive damaged', [ { do => 'bad_digest', times => undef, %part } ], <<'TEXT');
ERROR:  58030: could not upload part 2 of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered BadDigest (HTTP status 400) to s3:PutObject: The Content-MD5 you specified did not match what we received. Request ID ID, 2 attempts.
HINT:  What S3 received is not what was sent: look for a proxy, a network or memory that changes data.
TEXT
fails('a part is refused early', [ { do => 'early_403', %part } ], <<'TEXT');
ERROR:  28000: could not upload part 2 of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered AccessDenied (HTTP status 403) to s3:PutObject: Access Denied. Request ID ID, 1 attempt.
HINT:  Check that the policies of the user or role and of the bucket allow s3:PutObject on "arn:aws:s3:::exports/FOLDER/*" to the owner of the access key. A policy takes up to some minutes to become effective.
TEXT
fails('the upload is aborted by somebody else', [ { do => 'error', code => 'NoSuchUpload', %part } ],
	$gone =~ s/complete upload of/upload part 2 of/r);

# ---- Create
# So much is no error document of S3's.
fails('Create is refused at length', [ { do => 'big_error', %create } ], <<'TEXT');
ERROR:  08006: could not start upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  HTTP status 403 came to s3:PutObject: the answer is incomplete. Request ID ID, 1 attempt.
HINT:  Something between this server and S3 refuses the request, such as a proxy, a firewall or a gateway. Look at the setting "s3export.proxy" and at the endpoint: the credentials are not the matter.
TEXT
fails('a proxy refuses a part', [ { do => 'answer', status => 403, headers => { 'Content-Type' => 'text/html', Server => 'squid/5.7' }, body => '<html><body>Blocked by policy</body></html>', %part } ], <<'TEXT');
ERROR:  08006: could not upload part 2 of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  HTTP status 403 came to s3:PutObject: the answer is not one of S3, but "text/html" from "squid/5.7". 1 attempt.
HINT:  Something between this server and S3 refuses the request, such as a proxy, a firewall or a gateway. Look at the setting "s3export.proxy" and at the endpoint: the credentials are not the matter.
TEXT
fails('Create names another region', [ { do => 'error', code => 'PermanentRedirect', headers => { 'x-amz-bucket-region' => 'eu-west-1' }, %create } ], <<'TEXT');
ERROR:  38000: could not start upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered PermanentRedirect (HTTP status 301) to s3:PutObject: The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint. Request ID ID, 1 attempt.
HINT:  Set the region to "eu-west-1".
TEXT
fails('Create names a hostile region', [ { do => 'hostile_region', %create } ], <<'TEXT');
ERROR:  38000: could not start upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered AuthorizationHeaderMalformed (HTTP status 400) to s3:PutObject: The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'evil.com/'. Request ID ID, 1 attempt.
HINT:  Check the region and the endpoint: this answer normally comes from those of another region.
TEXT
@log = fails('Create is redirected to the instance metadata', [ { do => 'redirect', %create } ], <<'TEXT');
ERROR:  38000: could not start upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered TemporaryRedirect (HTTP status 307) to s3:PutObject. 1 attempt.
HINT:  Check the region and the endpoint: this answer normally comes from those of another region.
TEXT
arrives('Create is overloaded', [ { do => 'slow_down', %create } ]);
arrives('a refusal of Create is cut off', [ { do => 'answer', status => 403, headers => { 'Content-Length' => '1000' }, body => '<Error><Code>Acc', close => ScriptedS3::true, %create } ]);
fails('an upload id that would end a line', [ { do => 'answer', %create, status => 200,
	body => '<InitiateMultipartUploadResult><UploadId>a&#10;b</UploadId></InitiateMultipartUploadResult>' } ],
	<<'TEXT', set => q(SET s3export.retry_timeout = 0; ));
ERROR:  38000: could not start upload of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered with HTTP status 200 to s3:PutObject: the answer is not one of S3. 1 attempt.
HINT:  Something else than S3 may have answered, such as a proxy or a portal: look at the setting "s3export.proxy" and at the endpoint.
TEXT

# ---- a disk that is full

# Which part meets it, and how often it is sent, depends on the time.
my $full = <<'TEXT';
ERROR:  38000: could not upload part N of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered InternalError (HTTP status 500) to s3:PutObject: We encountered an internal error. Please try again. Request ID ID, some attempts.
HINT:  The server fails, and did so until s3export.retry_timeout was over. If it is your own, look at its logs and its disks; else try again later.
TEXT
my %full = (do => 'disk_full', bytes => 5_300_000, match => { operation => 'UploadPart' });
my @loose = (set => q(SET s3export.retry_timeout = '1s'; ), loose => 1);
fails('the disk is full', [ {%full} ], $full, @loose);
fails('the disk is full, which the status says', [ { %full, how => '507' } ],
	$full =~ s/38000/53400/r =~ s/HTTP status 500/HTTP status 507/r =~ s/^HINT:.*/HINT:  The server has no space left./mr, @loose);
fails('the disk is full, and the connection is dropped', [ { %full, how => 'drop' } ], <<'TEXT', @loose);
ERROR:  08006: could not upload part N of object "s3://exports/FOLDER/FILE.csv"
DETAIL:  No answer came to s3:PutObject: broken. some attempts.
HINT:  Check that the server can reach the endpoint, and the settings s3export.proxy and s3export.ca_file where they apply.
TEXT
fails('the disk is full, and the upload cannot be aborted',
	[ {%full}, { do => 'internal_error', match => { operation => 'AbortMultipartUpload' }, times => undef } ], $full, @loose, left => 1);

# ---- a server that is silent
foreach my $operation (qw(GetObject CreateMultipartUpload UploadPart CompleteMultipartUpload))
{
	my $file = "silent $operation.csv";
	my $error = '';
	my $started;

	$s3->call('add_fault', do => 'hold', match => { operation => $operation }, times => undef);
	my $since = $s3->log;
	my $held = $s3->call('wait', operation => $operation, finished => ScriptedS3::false, timeout => 0)->{seen};
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', 'VERBOSITY=verbose',
			'-c', copy_sql($file, set => q(SET s3export.stall_timeout = '60s'; )) ], '>', \my $out, '2>', \$error);
	$s3->call('wait', operation => $operation, count => $held + 1, finished => ScriptedS3::false);
	$started = time;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(leader_pid) FROM s3export.jobs WHERE uri LIKE '%/$file'");
	$handle->finish;
	cmp_ok(time - $started, '<', 1, "$operation is not answered: a cancel is");
	like($error, qr/ERROR:  57014: canceling statement due to user request/, "$operation is not answered: the error");
	# An answer that comes late tells what there is to abort, or that all is done.
	$s3->call('clear_faults') if $operation =~ /^C/;
	poll_until(sub { $node->safe_psql('postgres', "SELECT finished_at IS NOT NULL FROM s3export.jobs WHERE uri LIKE '%/$file'") eq 't' }, "the end of $file");
	if ($operation eq 'CompleteMultipartUpload')
	{
		# What has been sent takes its course, and is recorded.
		is(job_text($node, $file), "succeeded\n", "$operation is not answered: the job row");
		ok((object($file) // '') eq $oracle, "$operation is not answered: the object");
	}
	else
	{
		is(job_text($node, $file), "cancelled\nERROR:  57014: canceling statement due to user request\n", "$operation is not answered: the job row");
		is(object($file), undef, "$operation is not answered: no object appears");
		is(count('AbortMultipartUpload', $s3->log(since => $since)), { GetObject => 0, UploadPart => 2 }->{$operation} // 1, "$operation is not answered: what was begun is aborted, and again where a part may yet come");
	}
	is(scalar($s3->uploads('exports')), 0, "$operation is not answered: no upload stays open");
	fault_outcome("$operation is not answered, and the query is cancelled", caller_cell($error), job_cell($node, $file), scripted_cell($s3, "$folder/$file", $oracle));
	$s3->call('clear_faults');
}

# ---- clocks
foreach my $offset (1200, -1200)
{
	$s3->call('clock', offset => 0 + $offset);
	my $logged = -s $node->logfile;
	@log = arrives("S3's clock differs by $offset s", [], stated => 1);
	is_deeply([ map { "$_->{operation} " . ($_->{code} // 'ok') } @log[ 0, 1, 2 ] ],
		[ 'GetObject RequestTimeTooSkewed', 'GetObject NoSuchKey', 'CreateMultipartUpload ok' ], "S3's clock differs by $offset s: is found out once");
	like(substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $logged),
		$offset > 0 ? qr/LOG:  the clock of this server is \d+ seconds behind that of the service/
		: qr/LOG:  the clock of this server is \d+ seconds ahead of that of the service/, "S3's clock differs by $offset s: is logged");
}
$s3->call('clock', offset => 0);

# ---- sizes where the way to upload changes
my $part_size = 5 * 1024 * 1024;
foreach my $case (
	[ 'no rows', 'SELECT 1 WHERE false', 0, 'PutObject' ],
	[ 'one part less a byte', "SELECT repeat('x', $part_size - 2)", $part_size - 1, 'PutObject' ],
	[ 'one part', "SELECT repeat('x', $part_size - 1)", $part_size, 'PutObject' ],
	[ 'one byte more', "SELECT repeat('x', $part_size)", $part_size + 1, 'CreateMultipartUpload', 'UploadPart', 'UploadPart', 'CompleteMultipartUpload' ],
	[ 'two parts', "SELECT repeat('x', 2 * $part_size - 1)", 2 * $part_size, 'CreateMultipartUpload', 'UploadPart', 'UploadPart', 'CompleteMultipartUpload' ])
{
	my ($what, $select, $size, @requests) = @$case;

	@log = arrives($what, [], query => $select, rows => $size ? 1 : 0, bytes => $size ? 'x' x ($size - 1) . "\n" : '', arguments => ', header => false');
	is_deeply([ map { $_->{operation} } @log ], [ 'GetObject', @requests ], "$what: the requests");
	is((grep { $_->{operation} eq 'UploadPart' && $_->{part} == 2 } @log)[0]{body_size}, 1, "$what: the last part") if $what eq 'one byte more';
}

# ---- encryption
create_connector($node, 'sealed', at_endpoint($s3), %keys, folder_path => "$folder/sealed", server_side_encryption => 'AES256');
{
	my $since = $s3->log;
	my %with;
	my %without;

	$node->safe_psql('postgres', copy_sql('one.csv', connector => 'sealed', query => 'VALUES (1)'));
	$node->safe_psql('postgres', copy_sql('wide.csv', connector => 'sealed'));
	$node->safe_psql('postgres', q(SELECT * FROM s3export.test_credentials('sealed')));
	foreach my $entry ($s3->log(since => $since))
	{
		my $value = $entry->{headers}{'x-amz-server-side-encryption'};

		(defined $value ? \%with : \%without)->{ $entry->{operation} } = $value;
	}
	is_deeply(\%with, { PutObject => 'AES256', CreateMultipartUpload => 'AES256' }, 'encryption is asked for where an object begins');
	is_deeply([ sort keys %without ], [ sort qw(GetObject UploadPart CompleteMultipartUpload HeadBucket ListObjectsV2 GetBucketLocation DeleteObject AbortMultipartUpload) ],
		'and nowhere else');
	is(scalar(grep { $_->{headers}{'x-amz-server-side-encryption'} // '' eq 'AES256' } @{ $s3->call('objects', bucket => 'exports')->{objects} }), 2, 'and done');
}

# ---- every request of this test
{
	my @all = $s3->log;
	# What was cut short, as the other parts of an upload that fails, was not read.
	my @checked = grep { !@{ $_->{faults} } && !defined $_->{ended} && ($_->{code} // '') ne 'RequestTimeTooSkewed' } @all;
	my @bodies = grep { $_->{operation} =~ /^(PutObject|UploadPart)$/ && defined $_->{payload} } @all;

	cmp_ok(scalar(@all), '>', 300, 'requests were logged');
	is_deeply([ map { "$_->{operation} $_->{signature}" } grep { $_->{signature} ne 'valid' } @checked ], [], 'each is signed right');
	is(scalar(grep { $_->{signature} eq 'invalid' } @all), 0, 'and those that met a fault too');
	is(scalar(grep { $_->{payload} ne 'signed' } @bodies), 0, 'without TLS each body is signed');
	is_deeply([ grep { exists $_->{headers}{'transfer-encoding'} || exists $_->{headers}{expect} || ($_->{headers}{'content-encoding'} // '') =~ /aws-chunked/ } @all ], [],
		'none is in chunks');
	is(scalar(grep { !$_->{canonical_path} } @all), 0, 'paths are sent as they are signed');
	is_deeply([ grep { grep { /^x-amz-(checksum|sdk)/ } keys %{ $_->{headers} } } @all ], [], 'no checksum that only AWS knows');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
