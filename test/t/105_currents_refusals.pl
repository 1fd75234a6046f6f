# Which answers suspend a current, so that its oldest events are dropped in the end,
# and which do not: only a code that S3, STS or the instance metadata are known to
# refuse credentials with does, in an error document of theirs.
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
# What the server finds around itself, for the current with ambient credentials.
delete @ENV{ grep { /^AWS_/ } keys %ENV };
$ENV{AWS_EC2_METADATA_SERVICE_ENDPOINT} = 'http://127.0.0.1:' . $s3->port('imds') . '/';
my $node = currents_node('main', q(s3export.retry_timeout = '0'), 'max_replication_slots = 60', 's3export.allow_ambient_credentials = on');
my %keys = scripted_user($s3);
my %folder;
my $rows = 0;
my %launched_after;

sub sql { return $node->safe_psql('postgres', @_); }

# A current of the only table.
sub flow
{
	my ($name, %more) = @_;

	$folder{$name} = unique_folder();
	create_connector($node, $name, at_endpoint($s3), folder_path => $folder{$name}, kind => 'currents', tables => '{t}', validate => \'false',
		drop_after => '2 s', (exists $more{role_arn} || $more{auth_method} ? (access_key_id => undef, secret_access_key => undef) : %keys), %more);
	launch($node, $name);
	$launched_after{$name} = $rows;
	return;
}

sub insert
{
	$rows++;
	sql("INSERT INTO t VALUES ($rows)");
	return;
}

# Whether it succeeds is seen in the view.
sub try_to_deliver
{
	my ($name) = @_;

	$node->psql('postgres', "SELECT s3export.deliver('$name')", on_error_stop => 0);
	return;
}

sub state { return current_of($node, $_[0], 'state, suspended_at IS NOT NULL, deadline IS NOT NULL, events_dropped, coalesce(error_code, $$none$$)'); }

sub error_of { return masked(current_of($node, $_[0], 'error_detail')) . "\n" . masked(current_of($node, $_[0], 'coalesce(error_hint, $$$$)')); }

sub ids
{
	my ($name) = @_;

	return join ' ', map { $_->{values}{id} } events(files_in_scripted($s3, $folder{$name}));
}

# What they ought to be.
sub rows_of { return join ' ', $launched_after{ $_[0] } + 1 .. $rows; }

# Requests of this current only.
sub in_folder { return { key => "^\Q$folder{$_[0]}\E/" }; }

sub answer
{
	my ($status, $body, %headers) = @_;

	return { do => 'answer', status => $status, body => $body, headers => \%headers };
}

sub document
{
	my ($code, $status) = @_;

	return { do => 'error', code => $code, status => $status };
}

sql('CREATE TABLE t (id int PRIMARY KEY)');

my $html = '<html><head><title>403</title></head><body>Blocked by policy</body></html>';
my $proxy = qr/^Something between this server and S3 refuses .*"s3export\.proxy"/m;
my $support = qr/support/;

# ---- answers that are not S3's, and refusals of S3's that are no matter of credentials
# With each: the fault, the SQLSTATE, and what the detail and the hint say.
my %no_refusal = (
	'a page of a proxy' => [ answer(403, $html, 'Content-Type' => 'text/html', 'Server' => 'squid/5.7'), '08006',
		qr/^HTTP status 403 came to s3:\w+: the answer is not one of S3, but "text\/html" from "squid\/5\.7"\. 1 attempt\.$/m, $proxy ],
	'no body' => [ answer(403, ''), '08006', qr/the answer is not one of S3, but empty[ .]/, $proxy ],
	'a page that asks for a password' => [ answer(401, $html, 'Content-Type' => 'text/html', 'WWW-Authenticate' => 'Basic realm="gateway"'), '08006', qr/^HTTP status 401 came to/, $proxy ],
	'a proxy that asks for a password' => [ answer(407, $html, 'Content-Type' => 'text/html', 'Proxy-Authenticate' => 'Basic realm="proxy"'), '08006', qr/^HTTP status 407 came to/,
		qr/user name and password.*"s3export\.proxy"/ ],
	'a portal' => [ answer(302, '', Location => 'http://127.0.0.1:1/login'), '08006', qr/^HTTP status 302 came to/, $proxy ],
	'a portal that says so' => [ answer(511, $html, 'Content-Type' => 'text/html'), '08006', qr/^HTTP status 511 came to/, $proxy ],
	'a portal that says that all is well' => [ answer(200, $html, 'Content-Type' => 'text/html'), '38000', qr/^S3 answered with HTTP status 200 to s3:\w+: the answer is not one of S3\./, qr/"s3export\.proxy"/ ],
	'JSON' => [ answer(403, '{"Code":"AccessDenied"}', 'Content-Type' => 'application/json'), '08006', qr/but "application\/json"[ .]/, $proxy ],
	'a document with another root' => [ answer(403, '<Blocked><Error><Code>AccessDenied</Code></Error></Blocked>', 'Content-Type' => 'application/xml'), '08006', qr/but "application\/xml"[ .]/, $proxy ],
	'a document that is cut off' => [ answer(403, '<Error><Code>AccessDenied</Code>', 'Content-Type' => 'application/xml'), '08006', qr/but "application\/xml"[ .]/, $proxy ],
	'a document that declares entities' => [ answer(403, '<!DOCTYPE Error [<!ENTITY a "AccessDenied">]><Error><Code>AccessDenied</Code></Error>', 'Content-Type' => 'application/xml'), '08006', qr/but "application\/xml"[ .]/, $proxy ],
	'a header' => [ answer(403, '', 'x-amz-error-code' => 'AccessDenied'), '08006', qr/but empty[ .]/, $proxy ],
	'a code that nobody knows' => [ document('BlockedByGateway', 403), '38000', qr/^S3 answered BlockedByGateway \(HTTP status 403\)/, qr/does not take .* for a refusal of the credentials/ ],
	'a code without letters' => [ document('', 403), '08006', qr/^HTTP status 403 came to/, $proxy ],
	'a wrong clock' => [ document('RequestTimeTooSkewed'), '38000', qr/^S3 answered RequestTimeTooSkewed/, qr/^Set the clock of this server/m ],
	'a bucket that AWS has closed' => [ document('AllAccessDisabled', 403), '38000', qr/^S3 answered AllAccessDisabled/, $support ],
	'a payer that AWS has closed' => [ document('InvalidPayer', 403), '38000', qr/^S3 answered InvalidPayer/, $support ],
	'an account that has not paid' => [ document('AccountProblem', 403), '38000', qr/^S3 answered AccountProblem/, $support ],
	'an archived object' => [ document('InvalidObjectState', 403), '38000', qr/^S3 answered InvalidObjectState/, qr/./ ],
	'a quota' => [ document('QuotaExceeded', 403), '53400', qr/^S3 answered QuotaExceeded/, qr/quota/ ],
	'a disabled key of KMS' => [ document('KMS.DisabledException', 400), '38000', qr/^S3 answered KMS\.DisabledException/, qr/KMS key/ ],
	'a server that fails' => [ document('AccessDenied', 500), '38000', qr/^S3 answered AccessDenied \(HTTP status 500\)/, qr/./ ],
	'no such bucket' => [ document('NoSuchBucket', 404), '42704', qr/^S3 answered NoSuchBucket/, qr/./ ]);
my %named = map { $_ => 'p' . s/\W/_/gr } keys %no_refusal;

flow($named{$_}) foreach sort keys %no_refusal;
insert();
$s3->call('add_fault', %{ $no_refusal{$_}[0] }, match => in_folder($named{$_}), times => undef) foreach sort keys %no_refusal;
foreach my $what (sort keys %no_refusal)
{
	my ($fault, $code, $detail, $hint) = @{ $no_refusal{$what} };

	try_to_deliver($named{$what});
	is(state($named{$what}), "running|f|f|0|$code", "$what: no suspension");
	like(error_of($named{$what}), $_, "$what: what is said") foreach $detail, $hint;
}
sleep 3;
foreach my $what (sort keys %no_refusal)
{
	try_to_deliver($named{$what});
	is(state($named{$what}), "running|f|f|0|$no_refusal{$what}[1]", "$what: nothing is dropped");
}
$s3->call('clear_faults');
insert();
foreach my $what (sort keys %no_refusal)
{
	deliver($node, $named{$what});
	is(state($named{$what}), 'running|f|f|0|none', "$what: it goes on");
	is(ids($named{$what}), rows_of($named{$what}), "$what: nothing is missing");
	sql("SELECT s3export.drop_connector('$named{$what}')");
}

# ---- what S3 and other stores refuse credentials with
my %refusal = (
	AccessDenied => 403, InvalidAccessKeyId => 403, SignatureDoesNotMatch => 403, InvalidSecurity => 403, NotSignedUp => 403,
	ExpiredToken => 400, ExpiredTokenException => 400, InvalidToken => 400, TokenRefreshRequired => 400,
	InvalidTokenId => 403,            # MinIO
	UserSuspended => 403,             # Ceph
	Unauthorized => 401,              # R2
	AuthenticationRequired => 401);    # GCS

flow("s$_") foreach sort keys %refusal;
insert();
$s3->call('add_fault', %{ document($_, $refusal{$_}) }, match => in_folder("s$_"), times => undef) foreach sort keys %refusal;
foreach my $code (sort keys %refusal)
{
	try_to_deliver("s$code");
	is(state("s$code"), 'suspended|t|t|0|28000', "$code suspends");
	like(error_of("s$code"), qr/^S3 answered $code \(HTTP status $refusal{$code}\) to s3:\w+.*\n./, "$code: is named, with a hint");
}
$s3->call('clear_faults');
foreach my $code (sort keys %refusal)
{
	sql("SELECT s3export.resume('s$code')");
	deliver($node, "s$code");
	is(state("s$code"), 'running|f|f|0|none', "$code: it goes on when S3 does");
	is(ids("s$code"), rows_of("s$code"), "$code: nothing is missing");
	sql("SELECT s3export.drop_connector('s$code')");
}

# The answer to Complete begins before S3 knows whether it will be one.
flow('late', max_events_per_file => \'1000000');
sql(q(INSERT INTO t SELECT i FROM generate_series(1000001, 1400000) i));
$s3->call('add_fault', do => 'error', status => 200, code => 'AccessDenied', match => { %{ in_folder('late') }, operation => 'CompleteMultipartUpload' }, times => undef);
try_to_deliver('late');
is(state('late'), 'suspended|t|t|0|28000', 'AccessDenied with status 200 suspends');
$s3->call('clear_faults');
sql('SELECT s3export.drop_connector($$late$$)');

# ---- STS, and the instance metadata: each with one current, whose faults come one after the other
sub one_after_the_other
{
	my ($name, $match, $no_refusal, $refusal) = @_;

	insert();
	foreach my $what (sort keys %$no_refusal)
	{
		my ($fault, $code, $detail, $hint) = @{ $no_refusal->{$what} };

		$s3->call('add_fault', %$fault, match => $match, times => undef);
		try_to_deliver($name);
		is(state($name), "running|f|f|0|$code", "$name, $what: no suspension");
		like(error_of($name), $_, "$name, $what: what is said") foreach $detail, $hint;
		$s3->call('clear_faults');
	}
	deliver($node, $name);
	is(state($name), 'running|f|f|0|none', "$name: it goes on");
	foreach my $what (sort keys %$refusal)
	{
		my ($fault, $detail) = @{ $refusal->{$what} };

		insert();
		$s3->call('add_fault', %$fault, match => $match, times => undef);
		try_to_deliver($name);
		is(state($name), 'suspended|t|t|0|28000', "$name, $what: suspends");
		like(error_of($name), $detail, "$name, $what: what is said");
		$s3->call('clear_faults');
		sql("SELECT s3export.resume('$name')");
		deliver($node, $name);
		is(state($name), 'running|f|f|0|none', "$name, $what: it goes on");
	}
	is(ids($name), rows_of($name), "$name: nothing is missing");
	return;
}

my %role_keys = scripted_user($s3);
sql('SELECT s3export.set_identity(' . join(', ', map { sql_literal($role_keys{$_}) } qw(access_key_id secret_access_key)) . ')');
flow('role', role_arn => scripted_role($s3, 'flow'), sts_endpoint_url => $s3->url);

my $sts_proxy = qr/^Something between this server and STS refuses .*"s3export\.proxy"/m;
my $sts_says = 'STS answered';
one_after_the_other('role', { service => 'sts' }, {
		'a page of a proxy' => [ answer(403, $html, 'Content-Type' => 'text/html', 'Server' => 'squid/5.7'), '08006',
			qr/^HTTP status 403 came to sts:AssumeRole: the answer is not one of STS, but "text\/html" from "squid\/5\.7"\./, $sts_proxy ],
		'no body' => [ answer(403, ''), '08006', qr/the answer is not one of STS, but empty[ .]/, $sts_proxy ],
		'a proxy that asks for a password' => [ answer(407, ''), '08006', qr/^HTTP status 407 came to/, qr/user name and password.*"s3export\.proxy"/ ],
		'a page without what was asked for' => [ answer(200, $html, 'Content-Type' => 'text/html'), '38000', qr/does not hold what was asked for/, qr// ],
		'no such page' => [ answer(404, $html, 'Content-Type' => 'text/html'), '38000', qr/HTTP status 404/, qr// ],
		'a code that nobody knows' => [ document('BlockedByGateway', 403), '38000', qr/^$sts_says BlockedByGateway/, qr/does not take .* for a refusal of the credentials/ ],
		'a parameter' => [ document('ValidationError'), '38000', qr/^$sts_says ValidationError/, qr/^Check role/m ],
		'a policy' => [ document('PackedPolicyTooLarge'), '38000', qr/^$sts_says PackedPolicyTooLarge/, qr// ],
		'a provider that is out of reach' => [ document('IDPCommunicationError'), '38000', qr/^$sts_says IDPCommunicationError/, qr// ],
		'a clock that is slow' => [ { %{ document('SignatureDoesNotMatch') }, message => 'Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z (20260101T003000Z - 15 min.)' },
			'38000', qr/^$sts_says SignatureDoesNotMatch .*: Signature expired/, qr/^Correct the clock of this server\.$/m ],
		'a clock that is fast' => [ { %{ document('SignatureDoesNotMatch') }, message => 'Signature not yet current: 20260101T003000Z is still later than 20260101T001500Z (20260101T000000Z + 15 min.)' },
			'38000', qr/^$sts_says SignatureDoesNotMatch .*: Signature not yet current/, qr/^Correct the clock of this server\.$/m ],
		'a wrong clock' => [ document('RequestTimeTooSkewed', 403), '38000', qr/^$sts_says RequestTimeTooSkewed/, qr/^Correct the clock of this server\.$/m ]
	}, {
		(map { $_ => [ document($_), qr/^$sts_says $_ / ] } qw(AccessDenied ExpiredToken ExpiredTokenException InvalidClientTokenId SignatureDoesNotMatch
			RegionDisabledException IDPRejectedClaim InvalidIdentityToken)),
		# Ceph
		'NoSuchEntity' => [ document('NoSuchEntity', 404), qr/^$sts_says NoSuchEntity / ],
		'UserSuspended' => [ document('UserSuspended', 403), qr/^$sts_says UserSuspended / ],
		'InvalidAccessKeyId' => [ document('InvalidAccessKeyId', 403), qr/^$sts_says InvalidAccessKeyId / ]
	});

$s3->call('set_instance_role', role => scripted_role($s3, 'instance'));
flow('instance', auth_method => 'ambient');
my $imds_says = 'The instance metadata service answered';
one_after_the_other('instance', { service => 'imds' }, {
		'a page of a proxy' => [ answer(403, $html, 'Content-Type' => 'text/html'), '38000', qr/^$imds_says with HTTP status 403/, qr/./ ],
		'a token that it does not know' => [ answer(401, ''), '38000', qr/^$imds_says with HTTP status 401/, qr/./ ],
		'no role' => [ answer(404, ''), '38000', qr/^$imds_says with HTTP status 404/, qr/./ ],
		'no keys' => [ answer(200, '{"Code":"Failed","Message":"later"}'), '38000', qr/HTTP status 200/, qr/./ ]
	}, {});
one_after_the_other('instance', { operation => 'ImdsCredentials' }, {
		'a code that nobody knows' => [ answer(200, '{"Code":"Failed","Message":"later"}'), '38000', qr/^$imds_says Failed .*: later\./, qr/./ ],
		'a code with another status' => [ answer(403, '{"Code":"AssumeRoleUnauthorizedAccess"}'), '38000', qr/^$imds_says AssumeRoleUnauthorizedAccess/, qr/./ ]
	}, {
		'a role that EC2 may not assume' => [ answer(200, '{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role"}'), qr/^$imds_says AssumeRoleUnauthorizedAccess/ ]
	});

keep_secrets($s3);
$node->stop;
$s3->stop;
done_testing();
