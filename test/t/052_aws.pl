# What only AWS does: TLS with checksums in place of signed bodies, and roles
# whose sessions end before the export does.
use strict;
use warnings;
use lib 'test/lib';
use JSON::PP ();
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = s3export_node('main', aws_settings($s3), q(s3export.part_size = '5MB'), q(s3export.retry_timeout = '20s'));
my %keys = scripted_user($s3);
my $wide = 'SELECT i, repeat(md5(i::text), 32) AS filler FROM generate_series(1, 11000) i';
my $oracle = copy_oracle($node, $wide, 'HEADER');

sub copy_to
{
	my ($connector, $query, $file) = @_;

	return $node->safe_psql('postgres', "SELECT job_id FROM s3export.copy_to('$connector', " . sql_literal($query) . ", '$file')");
}

# ---- bodies
{
	my %place = at_aws();
	my $folder = $place{folder_path};
	my ($since, $job, @log, %first);

	create_connector($node, 'lake', %place, %keys);
	$since = $s3->log;
	copy_to('lake', 'VALUES (1)', 'one.csv');
	$job = copy_to('lake', $wide, 'wide.csv');
	is($s3->object('exports', "$folder/one.csv"), "column1\n1\n", 'one request: its bytes');
	ok($s3->object('exports', "$folder/wide.csv") eq $oracle, 'by parts: its bytes');

	@log = $s3->log(since => $since, service => 's3');
	is_deeply([ map { $_->{operation} } @log ],
		[ qw(GetObject PutObject GetObject CreateMultipartUpload UploadPart UploadPart UploadPart CompleteMultipartUpload) ], 'the requests');
	is_deeply([ grep { !$_->{tls} || $_->{signature} ne 'valid' || $_->{addressing} ne 'virtual' } @log ], [], 'over TLS, signed, to the bucket\'s own host');
	is_deeply([ grep { exists $_->{headers}{'transfer-encoding'} || exists $_->{headers}{'content-encoding'} || exists $_->{headers}{expect} } @log ], [],
		'not in chunks');
	foreach my $entry (@log)
	{
		my $operation = $entry->{operation};
		my $headers = $entry->{headers};

		if ($operation =~ /^(PutObject|UploadPart)$/)
		{
			is("$entry->{payload} $headers->{'x-amz-content-sha256'}", 'unsigned UNSIGNED-PAYLOAD', "$operation: its body is not signed");
			like($headers->{'x-amz-checksum-crc32c'}, qr{^[A-Za-z0-9+/]{6}==$}, "$operation: but has a checksum");
		}
		else
		{
			is($entry->{payload}, 'signed', "$operation: its body is signed");
		}
		$first{$operation} //= $headers;
	}
	is("@{$first{CreateMultipartUpload}}{qw(x-amz-checksum-algorithm x-amz-checksum-type)}", 'CRC32C FULL_OBJECT', 'an upload says which checksum it will have');
	is($first{CompleteMultipartUpload}{'x-amz-mp-object-size'}, length $oracle, 'and its end how long it is');
	is((grep { $_->{key} eq "$folder/wide.csv" } @{ $s3->call('objects', bucket => 'exports')->{objects} })[0]{checksums}{crc32c},
		$node->safe_psql('postgres', "SELECT crc32c FROM s3export.job_files WHERE job_id = $job"), 'S3 has the checksum that the file\'s row has');
}

# ---- the session of a role
my $role = scripted_role($s3, 'exporter');
my %place = at_aws();
my $folder = $place{folder_path};

$node->safe_psql('postgres', "SELECT s3export.set_identity('$keys{access_key_id}', '$keys{secret_access_key}')");
create_connector($node, 'role', %place, role_arn => $role);
{
	my $since = $s3->log;
	my $job = copy_to('role', 'VALUES (1)', 'a*b.csv');
	my ($assume) = $s3->log(since => $since, operation => 'AssumeRole');
	my $form = $assume->{form};

	is($form->{RoleSessionName}, "s3export-$job", 'a session is named after the job');
	is($form->{RoleArn}, $role, 'it is of the role');
	is($form->{ExternalId}, $node->safe_psql('postgres', q(SELECT external_id FROM s3export.connectors WHERE name = 'role')), 'asked for with the external ID');
	is($assume->{host}, 'sts.us-east-1.amazonaws.com', 'in the region');
	is_deeply(JSON::PP::decode_json($form->{Policy}), { Version => '2012-10-17', Statement => [
				{ Effect => 'Allow', Action => 's3:ListBucket', Resource => 'arn:aws:s3:::exports' },
				{ Effect => 'Allow', Action => [ 's3:PutObject', 's3:GetObject', 's3:AbortMultipartUpload' ],
					Resource => "arn:aws:s3:::exports/$folder/a\${*}b.csv" } ] },
		'it may do no more than this export needs, on its object alone');
	is(scalar(grep { $_->{principal} ne "arn:aws:sts::111122223333:assumed-role/exporter/s3export-$job" } $s3->log(since => $since, service => 's3')), 0,
		'and signs every request');
}

# ---- sessions that end before the export
# Parts follow each other fast enough for a renewal to begin in time.  STS is out
# of order when the first is due, and in order again soon.
{
	my $rows = 117000;
	my $slow = "SELECT i, repeat(md5(i::text), 32) AS filler, %s AS pause FROM generate_series(1, $rows) i";
	my $since = $s3->log;
	my ($text, @log, %sent, %signers);

	$s3->call('configure', longest_session => 5);
	$s3->call('add_fault', do => 'error', code => 'InternalFailure', match => { operation => 'AssumeRole' }, skip => 1);
	copy_to('role', sprintf($slow, 'CASE WHEN i % 1000 = 0 THEN pg_sleep(0.1) END'), 'slow.csv');
	$text = copy_oracle($node, sprintf($slow, q(CASE WHEN i % 1000 = 0 THEN '' END)), 'HEADER');
	ok($s3->object('exports', "$folder/slow.csv") eq $text, 'an export longer than its sessions arrives whole');
	is(job_text($node, 'slow.csv'), "succeeded\n", 'its job row');
	is(scalar($s3->uploads('exports')), 0, 'no upload stays open');

	@log = $s3->log(since => $since);
	$sent{ $_->{part} }++, $signers{ $_->{access_key_id} }++ foreach grep { $_->{operation} eq 'UploadPart' } @log;
	is_deeply(\%sent, { map { $_ => 1 } 1 .. 1 + int(length($text) / (5 * 1024 * 1024)) }, 'each part is sent once');
	cmp_ok(scalar(grep { $_->{operation} eq 'AssumeRole' && $_->{status} == 200 } @log), '>=', 3, 'the session is renewed again and again');
	cmp_ok(scalar(keys %signers), '>=', 3, 'parts are signed with different sessions');
	is(scalar(grep { ($_->{code} // '') =~ /Expired/ } @log), 0, 'none of which had expired');
	$s3->call('configure', longest_session => undef);
	$s3->call('clear_faults');
}

# ---- S3 says that a session has expired
{
	my $since = $s3->log;
	my %sent;

	$s3->call('add_fault', do => 'expired_token', match => { operation => 'UploadPart', part => 2 });
	copy_to('role', $wide, 'expired.csv');
	ok($s3->object('exports', "$folder/expired.csv") eq $oracle, 'a part whose session is said to have expired: the export arrives whole');
	$sent{ $_->{part} }++ foreach $s3->log(since => $since, operation => 'UploadPart');
	is_deeply(\%sent, { 1 => 1, 2 => 2, 3 => 1 }, 'and that part alone is sent again');

	$s3->call('add_fault', do => 'expired_token', match => { operation => 'UploadPart', part => 2 }, times => undef);
	is(error_text($node, "SELECT s3export.copy_to('role', " . sql_literal($wide) . ", 'lost.csv')"), <<'TEXT', 'sessions that S3 never believes: the error');
ERROR:  28000: could not upload part 2 of object "s3://exports/FOLDER/lost.csv"
DETAIL:  S3 answered ExpiredToken (HTTP status 400) to s3:PutObject: The provided token has expired. Request ID ID, 3 attempts.
HINT:  The role's session was renewed and is refused all the same: check the clocks of the servers.
TEXT
	is($s3->object('exports', "$folder/lost.csv"), undef, 'sessions that S3 never believes: no object appears');
	is(scalar($s3->uploads('exports')), 0, 'sessions that S3 never believes: no upload stays open');
	$s3->call('clear_faults');
}

# ---- clocks, of which STS says it in its own way
foreach my $offset (1200, -1200)
{
	$s3->call('clock', offset => -3600);
	my %early = scripted_user($s3);
	$s3->call('clock', offset => 0 + $offset);
	$node->safe_psql('postgres', "SELECT s3export.set_identity('$early{access_key_id}', '$early{secret_access_key}')");
	my $arn = scripted_role($s3, 'clock' . abs($offset) . ($offset > 0 ? 'ahead' : 'behind'));
	my $since = $s3->log;

	create_connector($node, "clock$offset", at_aws(), role_arn => $arn, validate => \'false');
	copy_to("clock$offset", $wide, 'clock.csv');
	is_deeply([ map { "$_->{operation} " . ($_->{code} // 'ok') } ($s3->log(since => $since))[ 0 .. 2 ] ],
		[ 'AssumeRole SignatureDoesNotMatch', 'AssumeRole ok', 'HeadBucket ok' ], "a clock that differs by $offset s is found out by STS, and right for S3");
	$s3->call('clock', offset => 0);
}

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
