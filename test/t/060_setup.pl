# From nothing to a tested connector by what the functions say: identities,
# policies, trust, roles that AWS does not know yet, rotation, and what objects
# are created with.  The scripted server enforces every policy as AWS does.
use strict;
use warnings;
use lib 'test/lib';
use File::Temp qw(tempdir);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults qw(checks_sql);
use ScriptedS3;
use Test::More;
use Time::HiRes qw(time sleep);

my $account = '111122223333';
my $base = 'AKIABASEBASEBASEBASE';
my $base_secret = 'base-secret-base-secret-base-secret-base';
my $secret = 'user-secret-user-secret-user-secret-user';
my $kms_key = "arn:aws:kms:us-east-1:$account:key/1234abcd-12ab-34cd-56ef-1234567890ab";
my $server = ScriptedS3->start;
my $node = s3export_node('main');
my $nobody = 0;

$server->call('configure', kms_keys => [ $kms_key, 'alias/aws/s3' ]);
$server->call('add_bucket', name => 'acme', object_ownership => 'ObjectWriter', owner => $account);
$server->call('add_user', access_key_id => $base, secret_access_key => $base_secret, name => 's3export');
%S3 = (%S3, ENDPOINT => $server->url, BUCKET => 'acme', REGION => 'us-east-1');
s3_secret($base_secret, $secret);

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# The value, and what the server said on the way.
sub sql_notices
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $statement);

	die "$statement: $err" if $status != 0;
	return ($out, $err);
}

# A new user with a policy as iam_policy makes it; returns the arguments that name the keys.
sub user_with
{
	my ($policy) = @_;
	my $id = sprintf 'AKIAUSERUSERUSER%04d', ++$nobody;

	$server->call('add_user', access_key_id => $id, secret_access_key => $secret, name => "user$nobody",
		policy => ref $policy ? $policy : decode_json($policy));
	return (access_key_id => $id, secret_access_key => $secret);
}

sub new_role
{
	my ($name, $trust, @more) = @_;

	return $server->call('add_role', name => $name, trust => ref $trust ? $trust : decode_json($trust), @more)->{arn};
}

# ---- who we are
my ($row, $said) = sql_notices('SELECT account IS NULL, arn IS NULL, external_id FROM s3export.identity()');
my ($no_account, $no_arn, $external_id) = split /\|/, $row;
is("$no_account$no_arn", 'tt', 'no account and no ARN without a base identity');
like($said, qr/NOTICE:  there is no base identity\nHINT:  .*set_identity/, 'and a hint');
like($external_id, qr/^s3export-[0-9a-f]{32}$/, 'the external ID is there before anything else');

my $dir = tempdir(CLEANUP => 1);
sub secret_file
{
	my ($name, $content) = @_;

	open my $file, '>', "$dir/$name" or die "could not write $dir/$name: $!";
	print $file $content;
	close $file;
	return "$dir/$name";
}

my $path = secret_file('base', "$base_secret\n");
sql("SELECT s3export.set_identity('$base', secret_file => '$path')");
my $sts = 'sts_endpoint_url => ' . sql_literal($server->url);
is(sql("SELECT * FROM s3export.identity($sts)"), "$account|arn:aws:iam::$account:user/s3export|$external_id",
	'the identity, with a secret from a file');

my $trust = sql("SELECT s3export.trust_policy($sts)");
is_deeply(decode_json($trust),
	{ Version => '2012-10-17', Statement => [ { Effect => 'Allow', Principal => { AWS => "arn:aws:iam::$account:user/s3export" },
		Action => 'sts:AssumeRole', Condition => { StringEquals => { 'sts:ExternalId' => $external_id } } } ] },
	'the trust policy');

# A session of a role stands for its role.
{
	my $machine = $server->call('add_role', name => 'machine', trust => { Version => '2012-10-17', Statement => [] })->{arn};
	my $keys = $server->call('start_session', role => $machine, name => 'i-0123456789');

	s3_secret($keys->{secret_access_key}, $keys->{session_token});
	$path = secret_file('session', "$keys->{secret_access_key}\r\n$keys->{session_token}\r\n");
	sql("SELECT s3export.set_identity('$keys->{access_key_id}', secret_file => '$path')");
	like(sql("SELECT arn FROM s3export.identity($sts)"), qr{^arn:aws:sts::$account:assumed-role/machine/i-0123456789$}, 'keys and token from a file');
	my ($policy, $said) = sql_notices("SELECT s3export.trust_policy($sts)");
	is(decode_json($policy)->{Statement}[0]{Principal}{AWS}, $machine, 'the trust policy names the role of a session');
	like($said, qr/NOTICE:  the base identity is a session of role "\Q$machine\E"/, 'and says so');

	$server->call('expire_sessions');
	error_like($node, "SELECT s3export.trust_policy($sts)",
		{ sqlstate => '28000', message => 'could not find out who the base identity is', detail => qr/ExpiredToken.*sts:GetCallerIdentity/ },
		'an identity that has expired');
	($row, $said) = sql_notices("SELECT arn IS NULL, external_id FROM s3export.identity($sts)");
	is($row, "t|$external_id", 'leaves the external ID');
	like($said, qr/WARNING:  could not find out who the base identity is\nDETAIL:  .*ExpiredToken/, 'and a warning');
	sql("SELECT s3export.set_identity('$base', '$base_secret')");
}

# ---- files that cannot be secrets
foreach my $case (
	[ 'empty', '', qr/^A secret access key has/ ], [ 'three', "a\nb\nc", qr/^It has more than two lines\./ ],
	[ 'binary', "abc\0def\n", qr/^It is not text\./ ], [ 'long', 'x' x 20000, qr/^It is too long\./ ],
	[ 'spaces', "hidden secret\n", qr/^A secret access key has/ ], [ 'token', "hidden\nhidden token\n", qr/^A session token has/ ])
{
	my ($name, $content, $detail) = @$case;

	$path = secret_file($name, $content);
	error_like($node, "SELECT s3export.set_identity('$base', secret_file => '$path')",
		{ sqlstate => '22023', message => qq(file "$path" cannot be used as secret_file), detail => $detail, hint => qr/first line/ },
		"a secret file that is not one: $name");
}

# ---- policies suffice, and no part of them is too much
{
	my %keys = user_with(sql("SELECT s3export.iam_policy('acme', folder_path => 'narrow')"));

	create_connector($node, 'narrow', %keys);
	is(sql("SELECT rows FROM s3export.copy_to('narrow', 'VALUES (1)', 'a.csv')"), 1, 'the policy suffices for an export to the folder of the connector\'s name');
	error_like($node, 'SELECT ' . connector_sql('wide', folder_path => 'narrower', %keys),
		{ message => qr/^S3 credentials are invalid/, detail => qr/s3:PutObject/ }, 'and ends at its folder');
	%keys = user_with(sql("SELECT s3export.iam_policy('acme', 'currents')"));
	error_like($node, 'SELECT ' . connector_sql('kind', folder_path => 'kind', %keys),
		{ message => 'S3 credentials are invalid: check "delete object" failed', detail => qr/s3:DeleteObject/ }, "the other kind's policy does not");
	foreach my $case ([ 'data_export', qr{^[^/ ]+$}, "the bucket's root" ], [ 'currents', qr{^currents/[^/ ]+$}, 'the folder of currents' ])
	{
		my ($kind, $key, $where) = @$case;

		$server->call('clear_log');
		$node->safe_psql('postgres', checks_sql('-', kind => $kind, %keys));
		like(join(' ', map { $_->{key} } $server->log(operation => 'CreateMultipartUpload')), $key, "without a folder_path $where is tested");
	}
	my ($out, $said) = sql_notices('SELECT ' . connector_sql('kind', kind => 'currents', folder_path => 'kind', %keys));
	like($said, qr/NOTICE:  bucket "acme" now has connectors of both kinds\nDETAIL:  .*"kind".*"currents".*"narrow".*"data_export"/,
		'both kinds in one bucket need a policy each');
}

# ---- what objects are created with, on the right requests
my @created_with = qw(x-amz-server-side-encryption x-amz-server-side-encryption-aws-kms-key-id
  x-amz-server-side-encryption-bucket-key-enabled x-amz-storage-class x-amz-tagging x-amz-acl);

# Which operations carried which of these headers, since the log was cleared.
sub carriers
{
	my ($header) = @_;
	my %operations = map { $_->{operation} => 1 } grep { defined $_->{headers}{$header} } $server->log(service => 's3');

	return join ' ', sort keys %operations;
}

my $tags = q({"team": "finance & co", "größe": "groß"});
my %options = (
	server_side_encryption => 'aws:kms', kms_key_id => $kms_key, bucket_key => 'true', storage_class => 'STANDARD_IA',
	tags => $tags, acl => 'bucket-owner-full-control', expected_bucket_owner => $account);
{
	my %keys = user_with(sql("SELECT s3export.iam_policy('acme')"));
	my $failures = join '|', split /\n/, sql_error($node, 'SELECT ' . connector_sql('options', folder_path => 'options', %keys, %options))->{detail};

	like($failures, qr/put object \(s3:PutObject\)/, 'KMS, ACLs and tags take rights of their own');
	%keys = user_with(sql("SELECT s3export.iam_policy('acme', kms_key_id => '$kms_key', acl => 'private', tags => '$tags')"));
	create_connector($node, 'options', folder_path => 'options', %keys, %options);

	$server->call('clear_log');
	is(sql("SELECT rows FROM s3export.copy_to('options', 'VALUES (1)', 'small.csv')"), 1, 'which the policy has, when asked for');
	is(carriers($_), 'PutObject', "$_ on PutObject alone") foreach @created_with;

	$server->call('clear_log');
	sql(q(SET s3export.part_size = '5MB';
		SELECT * FROM s3export.copy_to('options', 'SELECT repeat(''x'', 1000) FROM generate_series(1, 12000)', 'large.csv')));
	is(carriers($_), 'CreateMultipartUpload', "$_ on CreateMultipartUpload alone") foreach @created_with;
	my @without = grep { !defined $_->{headers}{'x-amz-expected-bucket-owner'} } $server->log(service => 's3');
	is(scalar @without, 0, 'expected_bucket_owner on all requests');
	is(scalar(grep { $_->{code} } $server->log(service => 's3', operation => 'UploadPart')), 0, 'no part is refused');
	my ($create) = $server->log(operation => 'CreateMultipartUpload');
	is($create->{headers}{'x-amz-tagging'}, 'team=finance%20%26%20co&gr%C3%B6%C3%9Fe=gro%C3%9F', 'tags as S3 wants them');
	is($create->{headers}{'content-type'}, 'text/csv', 'the content type of CSV');

	# overridden for one export
	$server->call('clear_log');
	sql(q(SELECT * FROM s3export.copy_to('options', 'VALUES (1)', 'other.csv', server_side_encryption => 'AES256',
		storage_class => 'GLACIER_IR', tags => '{}', acl => '', content_type => 'text/plain')));
	my ($put) = $server->log(operation => 'PutObject');
	is_deeply([ map { $put->{headers}{$_} } @created_with, 'content-type' ],
		[ 'AES256', undef, undef, 'GLACIER_IR', undef, undef, 'text/plain' ], 'one export overrides them');

	$server->call('clear_log');
	sql(q(SELECT * FROM s3export.copy_to('options', 'VALUES (1)', 'long.csv', tags => jsonb_build_object('x', repeat('ß', 256)))));
	($put) = $server->log(operation => 'PutObject');
	is($put->{headers}{'x-amz-tagging'}, 'x=' . '%C3%9F' x 256, 'the length of a tag is counted in characters');

	error_like($node, q(SELECT s3export.alter_connector('options', expected_bucket_owner => '999988887777')),
		{ message => qr/^S3 credentials are invalid/, detail => qr/AccessDenied/ }, "another account's bucket is not written to");
	error_like($node, q(SELECT s3export.alter_connector('options', kms_key_id => 'alias/missing')),
		{ sqlstate => '38000', message => 'S3 cannot be used as configured: check "put object" failed', detail => qr/KMS\.NotFoundException/, hint => qr/^Check that the KMS key/ }, 'a KMS key that is not there');
}

# ---- trust: the external ID right, wrong, absent
my $policy = sql("SELECT s3export.iam_policy('acme', kms_key_id => '$kms_key', acl => 'private', tags => '$tags')");
my $right = new_role('right', $trust, policy => decode_json($policy));
my $wrong = new_role('wrong', $trust =~ s/\Q$external_id\E/s3export-0123456789abcdef0123456789abcdef/r);
my $absent = new_role('absent', do { my $open = decode_json($trust); delete $open->{Statement}[0]{Condition}; $open });

($row, $said) = sql_notices('SELECT ' . connector_sql('right', folder_path => 'right', role_arn => $right, %options));
unlike($said, qr/WARNING/, 'a role that demands the external ID is accepted');
is(sql(q(SELECT string_agg("check" || '=' || ok, ', ') FROM (SELECT * FROM s3export.test_credentials('right') LIMIT 3) t)),
	'assume role=true, external id=true, bucket=true', 'its checks');
$server->call('clear_log');
is(sql("SELECT rows FROM s3export.copy_to('right', 'VALUES (1)', 'a.csv')"), 1, 'an export with it');
{
	my ($assume) = $server->log(operation => 'AssumeRole');
	my ($put) = $server->log(operation => 'PutObject');

	is($assume->{form}{ExternalId}, $external_id, 'the external ID is sent');
	like($assume->{form}{RoleSessionName}, qr/^s3export-\d+$/, 'the session is named by the job');
	is($put->{headers}{'x-amz-tagging'}, 'team=finance%20%26%20co&gr%C3%B6%C3%9Fe=gro%C3%9F', 'the narrowed session may tag, encrypt and set the ACL');
}

my $begun = time;
error_like($node, 'SELECT ' . connector_sql('wrong', folder_path => 'wrong', role_arn => $wrong, role_wait => '0'),
	{ sqlstate => '28000', message => 'S3 credentials are invalid: check "assume role" failed',
		detail => qr/^assume role \(sts:AssumeRole\): STS answered AccessDenied/, hint => qr/trust policy.*sts:ExternalId.*"\Q$external_id\E".*moment ago.*try again/s },
	'a role that demands another external ID');
cmp_ok(time - $begun, '<', 5, 'fails at once when it is not to be waited for');

($row, $said) = sql_notices('SELECT ' . connector_sql('absent', folder_path => 'absent', role_arn => $absent));
like($said, qr/WARNING:  check "external id" of the credentials failed\nDETAIL:  Role "\Q$absent\E" can be assumed without the external ID.*\nHINT:  .*\Q$external_id\E.*trust_policy/,
	'a role that demands none is accepted, with a warning');
is(sql(q(SELECT ok, action, hint ~ 'trust_policy' FROM s3export.test_credentials('absent') WHERE "check" = 'external id')), 'f|sts:AssumeRole|t', 'the check tells it');
$server->call('set_trust', arn => $absent, trust => decode_json($trust));
is(sql(q(SELECT count(*) FROM s3export.test_credentials('absent') WHERE NOT ok)), 0, 'and passes when the condition is there');

# Another role of the database has another external ID, and so no use for that role.
sql('CREATE ROLE other; GRANT EXECUTE ON FUNCTION s3export.create_connector TO other');
error_like($node, 'SET s3export.allowed_endpoints = ' . sql_literal($server->url) . '; SET s3export.allowed_sts_endpoints = ' . sql_literal($server->url) . '; SET ROLE other; SELECT '
	  . connector_sql('stolen', folder_path => 'stolen', role_arn => $right, role_wait => '0'),
	{ message => 'S3 credentials are invalid: check "assume role" failed' }, "nobody else's external ID is sent");

# ---- a role that AWS does not know yet
{
	my $arn = new_role('late', $trust, known_after => 3);

	$server->call('clear_log');
	error_like($node, 'SELECT ' . connector_sql('late', folder_path => 'late', role_arn => $arn, role_wait => '1 s'),
		{ message => qr/^S3 credentials are invalid/, hint => qr/takes a while to be known to AWS, here more than 1 s/ }, 'a wait that is too short');
	cmp_ok(scalar $server->log(operation => 'AssumeRole'), '>=', 2, 'tries more than once');
	create_connector($node, 'late', folder_path => 'late', role_arn => $arn);
	is(sql(q(SELECT validated_at IS NOT NULL FROM s3export.connectors WHERE name = 'late')), 't', 'the default wait is long enough');

	$arn = new_role('never', $trust, known_after => 3600);
	$begun = time;
	error_like($node, q(SET statement_timeout = '2s'; SELECT ) . connector_sql('never', folder_path => 'never', role_arn => $arn, role_wait => '1 hour'),
		{ sqlstate => '57014' }, 'a wait can be cancelled');
	cmp_ok(time - $begun, '<', 10, 'at once');

	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
		'SELECT ' . connector_sql('never', folder_path => 'never', role_arn => $arn, role_wait => '1 hour') ], '<', \undef, '>', \$out, '2>', \$err);
	ok(poll_until(sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%'
		AND wait_event_type = 'Extension' AND wait_event IN ('Extension', 'S3exportNewRole'))) }, 'the uploader to wait'), 'a wait is visible');
	sql(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%create_connector%' AND pid <> pg_backend_pid()));
	ok(poll_until(sub { sql(q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 's3export%')) eq 't' }, 'the uploader to end'), 'its uploader ends with it');
	$run->finish;
	like($err, qr/canceling statement due to user request/, 'as the statement does');
	is(sql(q(SELECT count(*) FROM s3export.connectors WHERE name = 'never')), 0, 'nothing is saved');
}

# ---- rotation while exports run: the old keys may go as soon as the new ones are stored
sub slow_export
{
	my ($connector) = @_;

	return "SET s3export.part_size = '5MB'; SET s3export.max_concurrent_parts = 1;"
	  . " SELECT rows FROM s3export.copy_to('$connector', 'SELECT repeat(md5(g::text), 8000), pg_sleep(0.04)::text FROM generate_series(1, 150) g', 'slow.csv', if_exists => 'overwrite')";
}

{
	my %old = user_with(sql("SELECT s3export.iam_policy('acme')"));
	my %new = user_with(sql("SELECT s3export.iam_policy('acme')"));
	my ($out, $err) = ('', '');
	my $run;

	create_connector($node, 'rotated', folder_path => 'rotated', %old);
	create_connector($node, 'sharing', folder_path => 'sharing', access_key_id => undef, secret_access_key => undef, credentials_from => 'rotated');
	error_like($node, "SELECT s3export.set_credentials('rotated', 'AKIANOBODYNOBODY0000', '$secret')",
		{ message => qr/^S3 credentials are invalid/ }, 'new keys are tested before they replace the old');

	$server->call('clear_log');
	$run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', slow_export('sharing') ], '<', \undef, '>', \$out, '2>', \$err);
	$server->call('wait', operation => 'UploadPart', count => 1, finished => ScriptedS3::true, timeout => 60);
	my ($set, $said) = sql_notices("SELECT s3export.set_credentials('rotated', '$new{access_key_id}', '$new{secret_access_key}')");
	like($said, qr/NOTICE:  replacing the credentials that 2 connectors share/, 'both connectors get the new keys');
	sleep 1.5;
	$server->call('remove_user', access_key_id => $old{access_key_id});
	$run->finish;
	is($out, "150\n", 'an export that runs goes on with them') or diag($err);
	my @parts = $server->log(operation => 'UploadPart');
	my %used = map { $_->{access_key_id} => 1 } @parts;
	is_deeply(\%used, { $old{access_key_id} => 1, $new{access_key_id} => 1 }, 'first parts with the old, last parts with the new');
	is(scalar(grep { $_->{code} } @parts), 0, 'and none is refused');
	is(scalar @parts, scalar(keys %{ { map { $_->{part} => 1 } @parts } }), 'nor sent twice');
	is(sql("SELECT rows FROM s3export.copy_to('rotated', 'VALUES (1)', 'after.csv')"), 1, 'the other connector has them too');
}

# New keys that this transaction has not committed are not replaced by the old ones.
{
	my %new = user_with(sql("SELECT s3export.iam_policy('acme')"));
	my %unrelated = user_with(sql("SELECT s3export.iam_policy('acme')"));
	my ($out, $err) = ('', '');
	my $run;

	create_connector($node, 'unrelated', folder_path => 'unrelated', %unrelated);
	$server->call('clear_log');
	$run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'BEGIN',
		'-c', "SELECT s3export.set_credentials('rotated', '$new{access_key_id}', '$new{secret_access_key}', unshare => true)",
		'-c', slow_export('rotated'), '-c', 'COMMIT' ], '<', \undef, '>', \$out, '2>', \$err);
	$server->call('wait', operation => 'UploadPart', count => 1, finished => ScriptedS3::true, timeout => 60);
	sql("SELECT s3export.set_credentials('unrelated', '$unrelated{access_key_id}', '$unrelated{secret_access_key}', validate => false)");
	$run->finish;
	like($out, qr/^150$/m, 'an export with keys that are not committed') or diag($err);
	my %used = map { $_->{access_key_id} => 1 } grep { $_->{key} && $_->{key} =~ /slow/ } $server->log(service => 's3');
	is_deeply(\%used, { $new{access_key_id} => 1 }, 'keeps them while others are replaced');
}

$node->stop;
$server->stop;
done_testing();
