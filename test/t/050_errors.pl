# What a person is told when S3 or STS refuses: the whole text, from an export,
# from its row, from a test of the credentials, and from the making of a
# connector.  The scripted server plays AWS.
use strict;
use warnings;
use lib 'test/lib';
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;

my $s3 = scripted_s3();
my $node = s3export_node('main', aws_settings($s3), q(s3export.retry_timeout = '0'));
my $connectors = 0;
my @checks = ('bucket', 'list bucket', 'bucket location', 'put object', 'get object', 'delete object');
my @actions = qw(s3:ListBucket s3:GetBucketLocation s3:PutObject s3:GetObject s3:DeleteObject s3:AbortMultipartUpload);

sub saved
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM s3export.connectors');
}

# A connector as it may have become since it was made: it is not tested.
sub connector
{
	my (%arguments) = @_;
	my $name = 'connector' . ++$connectors;

	create_connector($node, $name, %arguments, validate => \'false');
	return $name;
}

# What test_credentials and create_connector say when a check fails that makes the
# later ones pointless.
sub first_failure
{
	my ($sqlstate, $check, $action, $code, $message, $hint, $skip) = @_;
	my $title = $sqlstate eq '28000' ? 'S3 credentials are invalid' : 'S3 cannot be used as configured';
	my %actions = ('external id' => 'sts:AssumeRole', 'bucket' => 's3:ListBucket', 'list bucket' => 's3:ListBucket',
		'bucket location' => 's3:GetBucketLocation', 'put object' => 's3:PutObject', 'get object' => 's3:GetObject',
		'delete object' => 's3:DeleteObject');
	my @later = grep { $_ ne $check } $check eq 'assume role' ? 'external id' : (), @checks;

	return ("FAILED: $check, $action, $code\n  $message\n  $hint\n"
		  . join('', map { "FAILED: $_, $actions{$_}, -\n  Not checked, because $skip.\n  -\n" } @later),
		"ERROR:  $sqlstate: $title: check \"$check\" failed\nDETAIL:  $check ($action): $message\nHINT:  $hint\n");
}

# An export, a test and a new connector, all refused for one reason.
sub refused
{
	my ($what, $arguments, $expected, @first) = @_;
	my $name = connector(%$arguments);
	my ($check, $create) = first_failure($expected =~ /^ERROR:  (\w{5}):/, @first);
	my $before = saved();
	my $error = error_text($node, "SELECT s3export.copy_to('$name', 'SELECT pg_sleep(60)', '$name.csv')");

	is($error, $expected, "$what: copy_to");
	is(job_text($node, "$name.csv"), "failed\n$expected", "$what: the job row");
	fault_outcome($what, caller_cell($error), job_cell($node, "$name.csv"), scripted_cell($s3, "$arguments->{folder_path}/$name.csv", undef));
	is(failed_checks($node, $name), $check, "$what: test_credentials");
	is(error_text($node, 'SELECT ' . connector_sql('new', %$arguments, folder_path => unique_folder(), role_wait => '0')), $create, "$what: create_connector");
	is(saved(), $before, "$what: nothing is saved");
	return;
}

my %keys = scripted_user($s3);
my $role = scripted_role($s3, 'exporter');

# ---- keys

my $unknown = 'Check the access key ID: the server does not know it, or it is disabled. '
  . 'A temporary key, whose ID begins with ASIA, needs its session token. A key of AWS in China or of GovCloud is known in the regions there alone: set the region.';
my $no_such_key = 'The AWS Access Key Id you provided does not exist in our records. Request ID ID, 1 attempt.';
foreach my $case (
	[ 'an unknown key', { %keys, access_key_id => 'AKIASCRIPTED9999USER' } ],
	[ 'a temporary key without its token', { scripted_session($s3, $role), session_token => undef } ])
{
	my ($what, $arguments) = @$case;

	refused($what, { at_aws(), %$arguments }, <<TEXT,
ERROR:  28000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered InvalidAccessKeyId (HTTP status 403) to s3:GetObject: $no_such_key
HINT:  $unknown
TEXT
		'bucket', 's3:ListBucket', 'InvalidAccessKeyId',
		"S3 answered InvalidAccessKeyId (HTTP status 403) to s3:ListBucket: $no_such_key", $unknown,
		'S3 does not accept the credentials');
}

# The answer repeats what was signed, with the session token in it.
my $mismatch = 'The request signature we calculated does not match the signature you provided. Check your key and signing method. Request ID ID, 1 attempt.';
my $check_secret = 'Check the secret access key. A proxy that changes requests gives this answer too.';
foreach my $case (
	[ 'a wrong secret', { %keys, secret_access_key => 'wrong' x 8 } ],
	[ 'a wrong secret with a token', { scripted_session($s3, $role), secret_access_key => 'wrong' x 8 } ])
{
	my ($what, $arguments) = @$case;

	refused($what, { at_aws(), %$arguments }, <<TEXT,
ERROR:  28000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered SignatureDoesNotMatch (HTTP status 403) to s3:GetObject: $mismatch
HINT:  $check_secret
TEXT
		'bucket', 's3:ListBucket', 'SignatureDoesNotMatch',
		"S3 answered SignatureDoesNotMatch (HTTP status 403) to s3:ListBucket: $mismatch", $check_secret,
		'S3 does not accept the credentials');
}

my $malformed = 'The provided token is malformed or otherwise invalid. Request ID ID, 1 attempt.';
my $check_token = 'Check the session token: it does not belong to the access key ID.';
refused('a token of another key', { at_aws(), scripted_session($s3, $role), session_token => 'FwoGZXIvYXdzOFANOTHERKEY' }, <<TEXT,
ERROR:  28000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered InvalidToken (HTTP status 400) to s3:GetObject: $malformed
HINT:  $check_token
TEXT
	'bucket', 's3:ListBucket', 'InvalidToken', "S3 answered InvalidToken (HTTP status 400) to s3:ListBucket: $malformed",
	$check_token, 'S3 does not accept the credentials');

my $expired = 'The provided token has expired. Request ID ID, 1 attempt.';
my $renew = 'Set new credentials with s3export.set_credentials(), or use a role, whose sessions are renewed.';
my %session = scripted_session($s3, $role);
$s3->call('expire_sessions');
refused('a token that has expired', { at_aws(), %session }, <<TEXT,
ERROR:  28000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered ExpiredToken (HTTP status 400) to s3:GetObject: $expired
HINT:  $renew
TEXT
	'bucket', 's3:ListBucket', 'ExpiredToken', "S3 answered ExpiredToken (HTTP status 400) to s3:ListBucket: $expired",
	$renew, 'S3 does not accept the credentials');

# A clock that is wrong is corrected by S3's own, unless that makes no sense either.
my $skewed = 'The difference between the request time and the current time is too large. It was sent at TIME and received at '
  . '2031-01-01T00:00:00Z. Request ID ID, 2 attempts.';
my $set_clock = 'Set the clock of this server: it differs from that of S3 by more than 15 minutes.';
$s3->call('add_fault', do => 'error', code => 'RequestTimeTooSkewed', match => { service => 's3' }, times => undef,
	fields => { RequestTime => '20260101T000000Z', ServerTime => '2031-01-01T00:00:00Z' });
refused('a clock that is wrong', { at_aws(), %keys }, <<TEXT,
ERROR:  38000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered RequestTimeTooSkewed (HTTP status 403) to s3:GetObject: $skewed
HINT:  $set_clock
TEXT
	'bucket', 's3:ListBucket', 'RequestTimeTooSkewed',
	"S3 answered RequestTimeTooSkewed (HTTP status 403) to s3:ListBucket: $skewed", $set_clock,
	'S3 does not accept the clock of this server');
$s3->call('clear_faults');

# ---- refusals that are not of the credentials

# A code that is known to be no matter of credentials, and one that is not known.
foreach my $case (
	[ 'a bucket that AWS has closed', 'AllAccessDisabled', 'All access to this object has been disabled',
		'The provider has closed the bucket or the account. Neither other keys nor other policies help: ask its support.' ],
	[ 'a refusal with a code that is not known', 'BlockedByGateway', 'Ask your administrator.',
		's3export does not know this code and does not take it for a refusal of the credentials: look it up in the documentation of the server.' ])
{
	my ($what, $code, $message, $hint) = @$case;
	my $detail = ($message =~ s/\.?$/./r) . ' Request ID ID, 1 attempt.';

	$s3->call('add_fault', do => 'error', code => $code, status => 403, message => $message, match => { service => 's3' }, times => undef);
	refused($what, { at_aws(), %keys }, <<TEXT, 'bucket', 's3:ListBucket', $code,
ERROR:  38000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered $code (HTTP status 403) to s3:GetObject: $detail
HINT:  $hint
TEXT
		"S3 answered $code (HTTP status 403) to s3:ListBucket: $detail", $hint, 'the bucket was not reached');
	$s3->call('clear_faults');
}

# What a proxy, a firewall or a portal answers in place of S3, or of STS.
my $page = '<html><head><title>403</title></head><body>Blocked by policy</body></html>';

sub between
{
	my ($service) = @_;

	return "Something between this server and $service refuses the request, such as a proxy, a firewall or a gateway. "
	  . 'Look at the setting "s3export.proxy" and at the endpoint: the credentials are not the matter.';
}

foreach my $case (
	[ 'a proxy that refuses', { status => 403, headers => { 'Content-Type' => 'text/html', Server => 'squid/5.7' }, body => $page },
		'the answer is not one of S3, but "text/html" from "squid/5.7". 1 attempt.', between('S3') ],
	[ 'a proxy that refuses without a word', { status => 403, headers => { Server => 'squid/5.7' }, body => '' },
		'the answer is not one of S3, but empty from "squid/5.7". 1 attempt.', between('S3') ],
	[ 'a proxy that wants a password', { status => 407, headers => { 'Content-Type' => 'text/html', Server => 'squid/5.7' }, body => $page },
		'the answer is not one of S3, but "text/html" from "squid/5.7". 1 attempt.',
		'The proxy wants to know who asks: put the user name and password that it expects into the URL of the setting "s3export.proxy".' ])
{
	my ($what, $answer, $detail, $hint) = @$case;

	$s3->call('add_fault', do => 'answer', %$answer, match => { service => 's3' }, times => undef);
	refused($what, { at_aws(), %keys }, <<TEXT, 'bucket', 's3:ListBucket', '-',
ERROR:  08006: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  HTTP status $answer->{status} came to s3:GetObject: $detail
HINT:  $hint
TEXT
		"HTTP status $answer->{status} came to s3:ListBucket: $detail", $hint, 'the bucket was not reached');
	$s3->call('clear_faults');
}

# ---- buckets

my $check_bucket = 'Check the name of the bucket, and the endpoint if one is set.';
foreach my $place ([ 'at AWS', at_aws() ], [ 'at an endpoint', at_endpoint($s3) ])
{
	my ($where, %place) = @$place;

	refused("no such bucket $where", { %place, %keys, bucket => 'no-such-bucket' }, <<TEXT,
ERROR:  42704: could not look for object "s3://no-such-bucket/FOLDER/FILE.csv"
DETAIL:  S3 answered NoSuchBucket (HTTP status 404) to s3:GetObject: The specified bucket does not exist. Request ID ID, 1 attempt.
HINT:  $check_bucket
TEXT
		'bucket', 's3:ListBucket', 'NoSuchBucket', 'S3 answered NoSuchBucket (HTTP status 404) to s3:ListBucket. Request ID ID, 1 attempt.',
		$check_bucket, 'the bucket was not reached');
}

# ---- permissions

# What S3 says of an action that no policy allows, and what we say of it.
sub denied
{
	my ($action, $resource, $about) = @_;

	return 'User: arn:aws:iam::111122223333:user/exporter is not authorized to perform: '
	  . "$action on resource: \"arn:aws:s3:::$resource\" because no identity-based policy allows the $action action. Request ID ID, 1 attempt.";
}

sub allow_it
{
	my ($action, $resource) = @_;

	return "Check that the policies of the user or role and of the bucket allow $action on \"arn:aws:s3:::$resource\" "
	  . 'to the owner of the access key. A policy takes up to some minutes to become effective.';
}

sub user_without
{
	my ($action) = @_;

	return scripted_user($s3, policy => allow(grep { $_ ne $action } @actions));
}

my $may_read = 'Allow s3:GetObject on "arn:aws:s3:::exports/FOLDER/*", and s3:ListBucket on "arn:aws:s3:::exports": without the latter, '
  . 'S3 gives this answer for an object that does not exist, as the one asked for here, too.';
my %failing = (
	's3:ListBucket' => [ 'list bucket', denied('s3:ListBucket', 'exports'), allow_it('s3:ListBucket', 'exports') ],
	's3:GetBucketLocation' => [ 'bucket location', denied('s3:GetBucketLocation', 'exports'), allow_it('s3:GetBucketLocation', 'exports') ],
	's3:PutObject' => [ 'put object', denied('s3:PutObject', 'exports/FOLDER/s3export-check-TOKEN'), allow_it('s3:PutObject', 'exports/FOLDER/*') ],
	's3:GetObject' => [ 'get object', denied('s3:GetObject', 'exports/FOLDER/s3export-check-TOKEN'), $may_read ],
	's3:DeleteObject' =>
	  [ 'delete object', denied('s3:DeleteObject', 'exports/FOLDER/s3export-check-TOKEN'), allow_it('s3:DeleteObject', 'exports/FOLDER/*') ]);

foreach my $action (sort keys %failing)
{
	my ($check, $message, $hint) = @{ $failing{$action} };
	my %arguments = (at_aws(), user_without($action));
	my $name = connector(%arguments);
	my %failed = ($check => "FAILED: $check, $action, AccessDenied\n  S3 answered AccessDenied (HTTP status 403) to $action: $message\n  $hint\n");
	my $details = "$check ($action): S3 answered AccessDenied (HTTP status 403) to $action: $message\n";

	# Who may not list is not told that there is no such object.
	if ($action eq 's3:ListBucket')
	{
		my $hidden = "S3 answered AccessDenied (HTTP status 403) to s3:GetObject: $message";

		$failed{'get object'} = "FAILED: get object, s3:GetObject, AccessDenied\n  $hidden\n  $may_read\n";
		$details .= "get object (s3:GetObject): $hidden\n";
	}
	is(failed_checks($node, $name), join('', map { $failed{$_} // "ok: $_\n" } @checks), "without $action: test_credentials");
	is(error_text($node, 'SELECT ' . connector_sql('new', %arguments, folder_path => unique_folder())),
		"ERROR:  28000: S3 credentials are invalid: check \"$check\" failed\nDETAIL:  ${details}HINT:  $hint\n", "without $action: create_connector");
	next if $action eq 's3:PutObject';
	is($node->safe_psql('postgres', "SELECT rows FROM s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"), 1,
		"without $action: an export needs no more");
}
{
	my $name = connector(at_aws(), user_without('s3:PutObject'));
	my $message = denied('s3:PutObject', 'exports/FOLDER/FILE.csv');
	my $error = <<TEXT;
DETAIL:  S3 answered AccessDenied (HTTP status 403) to s3:PutObject: $message
HINT:  @{[ allow_it('s3:PutObject', 'exports/FOLDER/*') ]}
TEXT

	is(error_text($node, "SELECT s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"),
		qq(ERROR:  28000: could not upload object "s3://exports/FOLDER/FILE.csv"\n$error), 'without s3:PutObject: copy_to');
	is(error_text($node, "SET s3export.part_size = '5MB'; SELECT s3export.copy_to('$name', 'SELECT repeat(''x'', 6000000)', '$name.csv')"),
		qq(ERROR:  28000: could not start upload of object "s3://exports/FOLDER/FILE.csv"\n$error), 'without s3:PutObject: a multipart upload');
}
{
	my $name = connector(at_aws(), user_without('s3:PutObject'), server_side_encryption => 'aws:kms');
	my $hint = allow_it('s3:PutObject', 'exports/FOLDER/*')
	  =~ s/ A policy/ Encryption by aws:kms needs kms:GenerateDataKey and kms:Decrypt on its key, too. A policy/r;

	is(error_text($node, "SELECT s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"),
		qq(ERROR:  28000: could not upload object "s3://exports/FOLDER/FILE.csv"\nDETAIL:  S3 answered AccessDenied (HTTP status 403) to s3:PutObject: )
		  . denied('s3:PutObject', 'exports/FOLDER/FILE.csv') . "\nHINT:  $hint\n", 'without the right to a KMS key: copy_to');
}
{
	my $name = connector(at_aws(), user_without('s3:AbortMultipartUpload'));
	my $message = denied('s3:AbortMultipartUpload', 'exports/FOLDER/s3export-check-TOKEN');

	is(masked($node->safe_psql('postgres', "SELECT ok, message FROM s3export.test_credentials('$name') WHERE action = 's3:PutObject'")),
		't|An upload was started. It could not be aborted and is left under the key "FOLDER/s3export-check-TOKEN": '
		  . "S3 answered AccessDenied (HTTP status 403) to s3:AbortMultipartUpload: $message "
		  . 'Allow s3:AbortMultipartUpload, without which every export that fails leaves its parts in the bucket.',
		'without s3:AbortMultipartUpload: what a test leaves behind is said');
	is(scalar($s3->uploads('exports')), 1, 'without s3:AbortMultipartUpload: and is there');
	$s3->call('remove_upload', bucket => 'exports', upload_id => ($s3->uploads('exports'))[0]{upload_id});
}

# A bucket policy, or one of the organisation, that denies.
{
	my $name = connector(at_aws(), %keys);
	my $message = 'User: arn:aws:iam::111122223333:user/exporter is not authorized to perform: s3:PutObject on resource: '
	  . '"arn:aws:s3:::exports/FOLDER/FILE.csv" with an explicit deny in a resource-based policy. Request ID ID, 1 attempt.';

	$s3->call('set_policy', arn => 'arn:aws:s3:::exports', policy => { Version => '2012-10-17', Statement => [
			{ Effect => 'Deny', Action => 's3:PutObject', Resource => 'arn:aws:s3:::exports/*' } ] });
	is(error_text($node, "SELECT s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"), <<TEXT, 'a bucket policy that denies: copy_to');
ERROR:  28000: could not upload object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered AccessDenied (HTTP status 403) to s3:PutObject: $message
HINT:  @{[ allow_it('s3:PutObject', 'exports/FOLDER/*') ]}
TEXT
	$s3->call('set_policy', arn => 'arn:aws:s3:::exports', policy => undef);
}

# ---- regions

$s3->call('add_bucket', name => 'europe', region => 'eu-west-1');
create_connector($node, 'found', at_aws(), %keys, bucket => 'europe');
is($node->safe_psql('postgres', q(SELECT region FROM s3export.connectors WHERE name = 'found')), 'eu-west-1', 'a region is found out and kept');
{
	my %arguments = (at_aws(), %keys, bucket => 'europe', region => 'us-east-1');
	my ($status, $out, $err) = $node->psql('postgres', 'SELECT ' . connector_sql('astray', %arguments));

	is($err =~ s/^psql:<stdin>:\d+: //mgr, qq(WARNING:  bucket "europe" is in region "eu-west-1", not "us-east-1"\n)
		  . 'HINT:  Set the region to "eu-west-1": until then, each export asks the wrong one first.', 'a wrong region is warned of');
	is($node->safe_psql('postgres', q(SELECT message FROM s3export.test_credentials('astray') WHERE "check" = 'bucket')),
		'The bucket "europe" was reached. Its region is "eu-west-1", not "us-east-1" as configured.', 'a wrong region is said by the check');
	is(failed_checks($node, 'astray'), join('', map { "ok: $_\n" } @checks), 'and corrected by it');

	my $since = $s3->log;
	is($node->safe_psql('postgres', q(SELECT rows FROM s3export.copy_to('astray', 'VALUES (1)', 'astray.csv'))), 1,
		'a wrong region is corrected in an export');
	is_deeply([ map { "$_->{operation} $_->{host} $_->{status}" } $s3->log(since => $since, service => 's3') ],
		[ 'GetObject europe.s3.us-east-1.amazonaws.com 301', 'GetObject europe.s3.eu-west-1.amazonaws.com 404',
			'PutObject europe.s3.eu-west-1.amazonaws.com 200' ], 'once');
}

# A bucket that each region says is in the other one.
{
	my $name = connector(at_aws(), %keys, region => 'us-east-1');

	$s3->call('add_fault', do => 'error', code => 'PermanentRedirect', headers => { 'x-amz-bucket-region' => $_->[1] }, times => undef,
		match => { host => "exports.s3.$_->[0].amazonaws.com" }) foreach [ 'us-east-1', 'eu-west-1' ], [ 'eu-west-1', 'us-east-1' ];
	my $error = error_text($node, "SELECT s3export.copy_to('$name', 'VALUES (1)', '$name.csv')");
	is($error, <<'TEXT', 'regions that contradict each other: copy_to');
ERROR:  38000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered PermanentRedirect (HTTP status 301) to s3:GetObject: The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint. Request ID ID, 2 attempts.
HINT:  Set the region to "us-east-1".
TEXT
	$s3->call('clear_faults');
}

# A region that comes from the network is not part of a host name before it was looked at.
{
	my $name = connector(at_aws(), %keys, region => 'us-east-1');

	$s3->call('add_fault', do => 'hostile_region', match => { service => 's3' }, times => undef);
	is(error_text($node, "SELECT s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"), <<'TEXT', 'a hostile region: copy_to');
ERROR:  38000: could not look for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered AuthorizationHeaderMalformed (HTTP status 400) to s3:GetObject: The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'evil.com/'. Request ID ID, 2 attempts.
HINT:  Check the region and the endpoint: this answer normally comes from those of another region.
TEXT
	is(scalar(grep { $_->{host} =~ /evil/ } $s3->log), 0, 'a hostile region: nothing is sent there');
	$s3->call('clear_faults');
}

# ---- roles

sub identity
{
	my (%keys) = @_;

	$node->safe_psql('postgres', 'SELECT s3export.set_identity(' . join(', ', map { sql_literal($keys{$_}) } qw(access_key_id secret_access_key session_token)) . ')');
	s3_secret(grep { defined } @keys{qw(secret_access_key session_token)});
	return;
}

sub role_refused
{
	my ($what, $arn, $code, $message, $hint, %more) = @_;
	my $later = $more{later} // '';
	my $detail = "STS answered $code (HTTP status " . ($more{status} // 403) . ") to sts:AssumeRole: $message Request ID ID, "
	  . ($more{attempts} // '1 attempt') . '.';
	my %arguments = (at_aws(), role_arn => $arn, access_key_id => undef, secret_access_key => undef);

	refused($what, \%arguments, 'ERROR:  ' . ($more{sqlstate} // '28000') . <<TEXT, 'assume role', 'sts:AssumeRole', $code, $detail, $hint . $later, 'the role could not be assumed');
: could not get credentials for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  $detail
HINT:  $hint
TEXT
	return;
}

identity(%keys);
my $prefix = 'arn:aws:iam::111122223333:role';
my %denied = (
	'a role that does not exist' => "$prefix/nobody",
	'a role that trusts somebody else' =>
	  scripted_role($s3, 'foreign', trust => { Version => '2012-10-17', Statement => [ { Effect => 'Allow', Principal => { AWS => '444455556666' }, Action => 'sts:AssumeRole' } ] }),
	'a role with another external ID' => scripted_role($s3, 'other', trust => trust('sts:ExternalId' => 'another')));
foreach my $what (sort keys %denied)
{
	role_refused($what, $denied{$what}, 'AccessDenied',
		"User: arn:aws:iam::111122223333:user/exporter is not authorized to perform: sts:AssumeRole on resource: $denied{$what}.",
		"Check that role \"$denied{$what}\" exists, that its trust policy allows sts:AssumeRole to the owner of access key \"AKIAKEY\", "
		  . 'and that a condition on sts:ExternalId in it says "EXTERNAL".',
		later => " A role or trust policy made a moment ago takes a while to be known to AWS: try again in a while, or with role_wait => '1 min'.");
}

# The external ID that is sent is the one that is shown.
{
	my $name = connector(at_aws(), role_arn => "$prefix/nobody");
	my $id = $node->safe_psql('postgres', "SELECT external_id FROM s3export.connectors WHERE name = '$name'");
	my $arn = scripted_role($s3, 'right', trust => trust('sts:ExternalId' => $id));

	like(sql_error($node, "SELECT s3export.copy_to('$name', 'VALUES (1)')")->{hint}, qr/sts:ExternalId in it says "\Q$id\E"\.$/, 'the external ID to demand is shown');
	$name = connector(at_aws(), role_arn => $arn);
	is(failed_checks($node, $name), join('', map { "ok: $_\n" } 'assume role', 'external id', @checks), 'a role that demands it is assumed');
	is($node->safe_psql('postgres', "SELECT message FROM s3export.test_credentials('$name') LIMIT 1"),
		'The role was assumed as "arn:aws:sts::111122223333:assumed-role/right/s3export-check".', 'and shown');
}

# What the role may not do is said of the role.
{
	my $arn = scripted_role($s3, 'reader', policy => allow(grep { $_ ne 's3:PutObject' } @actions));
	my $name = connector(at_aws(), role_arn => $arn);

	is(error_text($node, "SELECT s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"), <<'TEXT', 'a role that may not write: copy_to');
ERROR:  28000: could not upload object "s3://exports/FOLDER/FILE.csv"
DETAIL:  S3 answered AccessDenied (HTTP status 403) to s3:PutObject: User: arn:aws:sts::111122223333:assumed-role/reader/s3export-JOB is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::exports/FOLDER/FILE.csv" because no identity-based policy allows the s3:PutObject action. Request ID ID, 1 attempt.
HINT:  Check that the policies of the user or role and of the bucket allow s3:PutObject on "arn:aws:s3:::exports/FOLDER/*" to "arn:aws:sts::111122223333:assumed-role/reader/s3export-JOB". A policy takes up to some minutes to become effective.
TEXT
}

# A role may allow sessions of less than an hour.
{
	my $arn = scripted_role($s3, 'short', max_session_duration => 1800);
	my $name = connector(at_aws(), role_arn => $arn);
	my $since = $s3->log;

	is($node->safe_psql('postgres', "SELECT rows FROM s3export.copy_to('$name', 'VALUES (1)', '$name.csv')"), 1, 'a role with short sessions: an export');
	is_deeply([ map { "$_->{form}{DurationSeconds} " . ($_->{code} // 'ok') } $s3->log(since => $since, operation => 'AssumeRole') ],
		[ '3600 ValidationError', '900 ok' ], 'a role with short sessions: asks for less');
}
my $limit = 'The requested DurationSeconds exceeds the MaxSessionDuration set for this role.';
$s3->call('add_fault', do => 'error', code => 'ValidationError', message => $limit, match => { service => 'sts' }, times => undef);
role_refused('a role with no session short enough', $role, 'ValidationError', $limit,
	"Check role \"$role\" and the external ID, and that the role allows sessions of 900 seconds.", status => 400, attempts => '2 attempts', sqlstate => '38000');
$s3->call('clear_faults');

$s3->call('configure', sts_disabled_regions => ['us-east-1']);
role_refused('STS is off in the region', $role, 'RegionDisabledException',
	'STS is not activated in this region for account:111122223333. Your account administrator can activate STS in this region using the IAM Console.',
	'Activate STS in region "us-east-1" in the account\'s settings of IAM.');
$s3->call('configure', sts_disabled_regions => []);

$s3->call('add_fault', do => 'error', code => 'SignatureDoesNotMatch', match => { service => 'sts' }, times => undef,
	message => 'Signature expired: 20260101T000000Z is now earlier than 20310101T001000Z (20310101T002500Z - 15 min.)');
role_refused('a clock that STS does not believe', $role, 'SignatureDoesNotMatch', 'Signature expired: TIME is now earlier than TIME (TIME - 15 min.).',
	'Correct the clock of this server.', attempts => '2 attempts', sqlstate => '38000');
$s3->call('clear_faults');

$s3->call('add_fault', do => 'error', code => 'ServiceUnavailable', match => { service => 'sts' }, times => undef);
role_refused('STS is overloaded', $role, 'ServiceUnavailable', 'Service Unavailable.', 'Try again later.', status => 503, sqlstate => '38000');
$s3->call('clear_faults');

$s3->call('add_fault', do => 'error', code => 'BlockedByGateway', status => 403, message => 'Ask your administrator.', match => { service => 'sts' }, times => undef);
role_refused('STS refuses with a code that is not known', $role, 'BlockedByGateway', 'Ask your administrator.',
	's3export does not know this code and does not take it for a refusal of the credentials: look it up in the documentation of STS.', sqlstate => '38000');
$s3->call('clear_faults');

$s3->call('add_fault', do => 'answer', status => 403, headers => { 'Content-Type' => 'text/html', Server => 'squid/5.7' }, body => $page, match => { service => 'sts' }, times => undef);
{
	my $detail = 'HTTP status 403 came to sts:AssumeRole: the answer is not one of STS, but "text/html" from "squid/5.7". 1 attempt.';
	my %arguments = (at_aws(), role_arn => $role, access_key_id => undef, secret_access_key => undef);

	refused('a proxy that refuses STS', \%arguments, <<TEXT, 'assume role', 'sts:AssumeRole', '-', $detail, between('STS'), 'the role could not be assumed');
ERROR:  08006: could not get credentials for object "s3://exports/FOLDER/FILE.csv"
DETAIL:  $detail
HINT:  @{[ between('STS') ]}
TEXT
}
$s3->call('clear_faults');

identity(%keys, secret_access_key => 'wrong' x 8);
role_refused('a wrong secret of the identity', $role, 'SignatureDoesNotMatch',
	'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. '
	  . 'Consult the service documentation for details.',
	'Check the secret access key that belongs to access key "AKIAKEY", and the clock of this server.');

identity(%keys, access_key_id => 'AKIASCRIPTED9999USER');
role_refused('an unknown identity', $role, 'InvalidClientTokenId', 'The security token included in the request is invalid.',
	'Access key "AKIAKEY" does not exist there or is disabled.');

%session = scripted_session($s3, $role);
identity(%session, session_token => undef);
role_refused('a temporary identity without its token', $role, 'InvalidClientTokenId', 'The security token included in the request is invalid.',
	'Access key "ASIAKEY" does not exist there or is disabled. It is a temporary one, which needs its session token.');

identity(%session);
{
	my $name = connector(at_aws(), role_arn => scripted_role($s3, 'chained', max_session_duration => 43200));

	is(failed_checks($node, $name), <<TEXT . join('', map { "ok: $_\n" } @checks), 'a temporary identity assumes a role, which trusts too many');
ok: assume role
FAILED: external id, sts:AssumeRole, -
  Role "$prefix/chained" can be assumed without the external ID, so whoever uses the same base identity can use it.
  Add the condition that sts:ExternalId is "EXTERNAL" to its trust policy, as s3export.trust_policy() shows it.
TEXT
}
$s3->call('expire_sessions');
role_refused('an identity whose token has expired', $role, 'ExpiredToken', 'The security token included in the request is expired.',
	'The session of access key "ASIAKEY" is over. Set new keys.');

# ---- what is in the log

keep_secrets($s3);
{
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);

	like($log, qr/could not look for object/, 'the log has the errors');
	unlike($log, qr/CanonicalRequest|StringToSign|Canonical String|AWS4-HMAC-SHA256/, 'and nothing of what was signed');
	is(scalar(grep { index($log, $_) >= 0 } @{ $s3->call('secrets')->{secrets} }), 0, 'nor a secret');
}

$node->stop;
$s3->stop;
done_testing();
