# Credentials that the server finds around itself: each place, in its order,
# what is refused, and that whoever answers there cannot do harm.
use strict;
use warnings;
use lib 'test/lib';
use File::Temp qw(tempdir);
use PostgreSQL::Test::Utils;
use S3Export;
use ScriptedS3;
use Test::More;

my $account = '111122223333';
my $key = 'AKIAAMBIENTAMBIENT00';
my $secret = 'ambient-secret-ambient-secret-ambient-se';
my $issuer = 'oidc.example.org/id/1234';
my $web_token = 'eyJhbGciOiJ-web-identity-token-' . 'w' x 40;
my $container_token = 'container-authorization-' . 'c' x 40;
my $server = ScriptedS3->start;
# At debug3 a postmaster writes its environment to its log.
my $node = s3export_node('main', 'log_min_messages = debug2');
my $dir = tempdir(CLEANUP => 1);
my $folders = 0;

sub anybody_may
{
	my ($action, $principal, $condition) = @_;

	return { Version => '2012-10-17', Statement => [ { Effect => 'Allow', Action => $action, Principal => $principal,
		($condition ? (Condition => $condition) : ()) } ] };
}

my $by_account = anybody_may('sts:AssumeRole', { AWS => $account });
my $by_token = anybody_may('sts:AssumeRoleWithWebIdentity', { Federated => "arn:aws:iam::$account:oidc-provider/$issuer" },
	{ StringEquals => { "$issuer:sub" => 'system:serviceaccount:default:postgres' } });

$server->call('add_bucket', name => 'acme', owner => $account);
$server->call('add_user', access_key_id => $key, secret_access_key => $secret, name => 'ambient');
my %role = map { $_ => $server->call('add_role', name => $_, trust => $_ eq 'web' ? $by_token : $by_account)->{arn} }
  qw(instance container web profile target);
$server->call('add_web_identity', token => $web_token, issuer => $issuer, sub => 'system:serviceaccount:default:postgres');
%S3 = (%S3, ENDPOINT => $server->url, BUCKET => 'acme', REGION => 'us-east-1', ACCESS_KEY_ID => $key, SECRET_ACCESS_KEY => $secret);
s3_secret($secret, $web_token, $container_token);

sub file
{
	my ($name, $content) = @_;

	open my $file, '>', "$dir/$name" or die "could not write $dir/$name: $!";
	print $file $content;
	close $file;
	return "$dir/$name";
}

# Restarts the server with these variables, and no others of AWS's, in its environment.
sub environment
{
	my (%variables) = @_;

	local %ENV = %ENV;
	delete @ENV{ grep { /^AWS_/ } keys %ENV };
	%ENV = (%ENV, AWS_EC2_METADATA_DISABLED => 'true', HOME => $dir, %variables);
	delete $ENV{$_} foreach grep { !defined $ENV{$_} } keys %ENV;
	$node->restart;
	$server->call('clear_log');
	return;
}

my %imds = (AWS_EC2_METADATA_DISABLED => undef, AWS_EC2_METADATA_SERVICE_ENDPOINT => 'http://127.0.0.1:' . $server->port('imds') . '/');
my %container = (AWS_CONTAINER_CREDENTIALS_FULL_URI => 'http://127.0.0.1:' . $server->port('container') . '/v2/credentials/test');
my %web = (AWS_ROLE_ARN => $role{web}, AWS_WEB_IDENTITY_TOKEN_FILE => "$dir/web", AWS_ENDPOINT_URL_STS => $server->url);
my %keys = (AWS_ACCESS_KEY_ID => $key, AWS_SECRET_ACCESS_KEY => $secret);

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

sub ambient_sql
{
	my (%arguments) = @_;

	return connector_sql('ambient' . ++$folders, folder_path => "f$folders", access_key_id => undef,
		secret_access_key => undef, auth_method => 'ambient', %arguments);
}

# Makes a connector, which tests it, and exports; returns who S3 says has put the object.
sub exported_by
{
	my $name;

	sql('SELECT ' . ambient_sql());
	$name = "ambient$folders";
	sql("SELECT s3export.copy_to('$name', 'VALUES (1)', 'a.csv')");
	my ($put) = grep { $_->{worked} } $server->log(operation => 'PutObject');
	return $put->{principal};
}

# A connector cannot be made, for this reason.
sub refused
{
	my ($expected, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return error_like($node, "SET s3export.retry_timeout = '500ms'; SELECT " . ambient_sql(), $expected, $name);
}

# Without a refusal in so many words, it is not said that they are invalid.
sub invalid
{
	my ($detail, $hint, $name, $sqlstate) = @_;

	$sqlstate //= '38000';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return refused({ sqlstate => $sqlstate, message => $sqlstate eq '28000' ? qr/^S3 credentials are invalid/ : qr/^S3 cannot be used as configured/,
			detail => $detail, hint => $hint }, $name);
}

# ---- not unless a superuser allows them
environment(%keys);
refused({ sqlstate => '42501', message => 'ambient credentials are not allowed', hint => qr/"s3export.allow_ambient_credentials"/ },
	'not allowed by default');
error_like($node, 'SELECT ' . connector_sql('by role', role_arn => $role{target}),
	{ sqlstate => '55000', message => qr/^there is no base identity/ }, 'nor as base identity');
error_like($node, 'LOAD \'s3export\'; SET s3export.allow_ambient_credentials = on',
	{ sqlstate => '55P02' }, 'no session can allow them, not even a superuser\'s');
error_like($node, 'SET s3export.allow_ambient_credentials = on; SELECT ' . ambient_sql(),
	{ sqlstate => '42501', message => 'ambient credentials are not allowed' }, 'not by a setting that comes before the library');
is(scalar($server->log), 0, 'nobody was asked');

$node->append_conf('postgresql.conf', "s3export.allow_ambient_credentials = on\ns3export.allowed_endpoints = '*'");
environment(%keys);
sql('CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice; CREATE ROLE bob LOGIN');
error_like($node, 'SELECT ' . ambient_sql(), { sqlstate => '42501', message => qr/^must be superuser to create or alter a connector with ambient/ },
	'only a superuser makes such a connector', user => 'alice');
error_like($node, 'SELECT * FROM s3export.test_credentials(bucket => \'acme\', auth_method => \'ambient\')',
	{ sqlstate => '42501', message => qr/^must be superuser/ }, 'or tries one', user => 'alice');
is(scalar($server->log), 0, 'nobody was asked');

# ---- the environment
is(exported_by(), "arn:aws:iam::$account:user/ambient", 'keys in the environment');
my $first = "ambient$folders";
is(sql("SELECT auth_method, access_key_id IS NULL, credentials_missing FROM s3export.connectors WHERE name = '$first'"), 'ambient|t|f', 'as the view has it');
sql("SELECT s3export.grant_usage('$first', 'bob')");
is($node->safe_psql('postgres', "SELECT rows FROM s3export.copy_to('$first', 'VALUES (1)', 'b.csv')", extra_params => [ '-U', 'bob' ]), 1,
	'use can be granted');
sql("SELECT s3export.alter_connector('$first', owner => 'alice')");
foreach my $case (
	[ 'alters its bucket', "SELECT s3export.alter_connector('$first', bucket => 'other', validate => false)" ],
	[ 'shares its credentials', "SELECT s3export.create_connector('thief', 'acme', credentials_from => '$first', validate => false)" ],
	[ 'sets ambient ones', "SELECT s3export.set_credentials('$first', auth_method => 'ambient', validate => false)" ])
{
	error_like($node, $case->[1], { sqlstate => '42501', message => qr/^must be superuser/ }, "no owner $case->[0]", user => 'alice');
}
foreach my $case (
	[ 'another method', "auth_method => 'iam'", qr/^invalid value for argument "auth_method": "iam"/ ],
	[ 'ambient with a key', "auth_method => 'ambient', access_key_id => 'AKIAX'", qr/^argument "access_key_id" does not fit auth_method "ambient"/ ],
	[ 'ambient with a role', "auth_method => 'ambient', role_arn => '$role{web}'", qr/^argument "role_arn" does not fit auth_method "ambient"/ ],
	[ 'a role that is no key', "auth_method => 'secret_key', role_arn => '$role{web}'", qr/^argument "role_arn" does not fit/ ],
	[ 'a method of another\'s', "auth_method => 'role_arn', credentials_from => '$first'", qr/^argument "credentials_from" does not fit/ ],
	[ 'a role that is missing', "auth_method => 'role_arn'", qr/^credentials are missing/ ])
{
	error_like($node, "SELECT s3export.create_connector('x', 'acme', $case->[1])", { sqlstate => '22023', message => $case->[2] }, $case->[0]);
}
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/DEBUG:  ambient credentials are those in the environment\n/, 'the log says which ones they are');

environment(AWS_ACCESS_KEY_ID => $key);
refused({ sqlstate => 'F0000', message => 'cannot use the ambient credentials in the environment', detail => qr/belong together/ }, 'half a key');
environment(%keys, AWS_ACCESS_KEY_ID => 'AKIA WITH SPACES');
refused({ sqlstate => 'F0000', detail => qr/characters that are not allowed/ }, 'a key that is none');
environment();
refused({ sqlstate => 'F0000', message => 'there are no ambient credentials' }, 'nothing anywhere');

{
	my $session = $server->call('start_session', role => $role{instance});

	s3_secret($session->{secret_access_key}, $session->{session_token});
	environment(AWS_ACCESS_KEY_ID => $session->{access_key_id}, AWS_SECRET_ACCESS_KEY => $session->{secret_access_key},
		AWS_SESSION_TOKEN => $session->{session_token});
	like(exported_by(), qr{:assumed-role/instance/}, 'a session in the environment');
	$server->call('expire_sessions');
	error_like($node, "SELECT s3export.copy_to('ambient$folders', 'VALUES (1)', 'b.csv', if_exists => 'overwrite')", { sqlstate => '28000', detail => qr/ExpiredToken/ },
		'which nobody renews');
}

# ---- profiles
file('config', <<"END");
[default]
region = us-east-1
[profile chained]
role_arn = $role{profile}
source_profile = keys
role_session_name = of-a-profile
duration_seconds = 1800
[profile process]
credential_process = /bin/false
[profile broken]
role_arn = $role{profile}
source_profile = nowhere
[profile by-web]
role_arn = $role{web}
web_identity_token_file = $dir/web
[profile by-environment]
role_arn = $role{profile}
credential_source = Environment
END
my %files = (AWS_CONFIG_FILE => "$dir/config", AWS_SHARED_CREDENTIALS_FILE => file('credentials', <<"END"), AWS_ENDPOINT_URL_STS => $server->url);
[default]
aws_access_key_id = $key
aws_secret_access_key = $secret
[keys]
aws_access_key_id = $key
aws_secret_access_key = $secret
END
environment(%files);
is(exported_by(), "arn:aws:iam::$account:user/ambient", 'the default profile');
environment(%files, AWS_PROFILE => 'chained');
is(exported_by(), "arn:aws:sts::$account:assumed-role/profile/of-a-profile", 'a profile with a role');
is(($server->log(operation => 'AssumeRole'))[0]{form}{DurationSeconds}, 1800, 'with its own duration');

# A session of a session lasts an hour at most, and the external ID is sent for ours only.
$server->call('clear_log');
sql('SELECT ' . connector_sql('by role', folder_path => 'role', role_arn => $role{target}));
is(sql("SELECT auth_method, credentials_missing FROM s3export.connectors WHERE name = 'by role'"), 'role_arn|f', 'a role with an ambient base identity');
sql("SELECT s3export.copy_to('by role', 'VALUES (1)', 'a.csv')");
my ($put) = $server->log(operation => 'PutObject');
like($put->{principal}, qr{:assumed-role/target/s3export-\d+$}, 'which is a session itself');
my @calls = map { $_->{form} } grep { $_->{worked} } $server->log(operation => 'AssumeRole');
is_deeply([ map { $_->{DurationSeconds} } grep { $_->{RoleArn} eq $role{target} } @calls ], [ 3600, 3600, 3600 ], 'no session of a session is longer');
is(scalar(grep { $_->{RoleArn} eq $role{profile} && exists $_->{ExternalId} } @calls), 0, 'the profile has no external ID');
is(sql('SELECT arn FROM s3export.identity(sts_endpoint_url => ' . sql_literal($server->url) . ')'),
	"arn:aws:sts::$account:assumed-role/profile/of-a-profile", 'who we are');

environment(%files, AWS_PROFILE => 'by-environment', %keys);
is(exported_by(), "arn:aws:iam::$account:user/ambient", 'keys in the environment go before a profile');
environment(%files, AWS_PROFILE => 'process');
refused({ sqlstate => 'F0000', message => 'cannot use the ambient credentials in profile "process"', detail => qr/"credential_process" of a profile is not supported/ },
	'a process is not run');
environment(%files, AWS_PROFILE => 'broken');
refused({ sqlstate => 'F0000', detail => qr/^Profile "nowhere", the source_profile of profile "broken", does not exist/ }, 'a source that is missing');
environment(%files, AWS_PROFILE => 'missing');
refused({ sqlstate => 'F0000', message => 'cannot use the ambient credentials in profile "missing"' }, 'a profile that is missing');
environment(%files, AWS_SHARED_CREDENTIALS_FILE => "$dir/no-such-file");
refused({ sqlstate => '58P01', message => qr/^could not read file ".*no-such-file"/ }, 'a file that is missing');
file('config', "[default]\naws_access_key_id = $key\naws_secret_access_key =\n");
environment(AWS_CONFIG_FILE => "$dir/config", %imds);
refused({ sqlstate => 'F0000', message => qr/profile "default"/ }, 'what is set up halfway is not passed over');
mkdir "$dir/.aws";
file('.aws/credentials', "[default]\naws_access_key_id = $key\naws_secret_access_key = $secret\n");
environment();
is(exported_by(), "arn:aws:iam::$account:user/ambient", 'the files in the home directory');
unlink "$dir/.aws/credentials";

# ---- web identity
file('web', "$web_token\n");
environment(%web, %container);
like(exported_by(), qr{:assumed-role/web/s3export-\d+$}, 'web identity, which goes before a container');
is_deeply([ map { $_->{signature} } grep { $_->{worked} } $server->log(operation => 'AssumeRoleWithWebIdentity') ], [ 'missing', 'missing' ], 'by requests that are not signed');
is(scalar($server->log(operation => 'ContainerCredentials')), 0, 'the container was not asked');
file('web', "$web_token-forged");
invalid(qr/STS answered InvalidIdentityToken .* to sts:AssumeRoleWithWebIdentity/, qr/token in file "\Q$dir\E\/web" is renewed.* It was written at 20/, 'a token that nobody knows', '28000');
file('web', "$web_token\n");
$server->call('add_fault', do => 'error', code => 'IDPRejectedClaim', match => { operation => 'AssumeRoleWithWebIdentity' });
invalid(qr/STS answered IDPRejectedClaim \(HTTP status 403\) to sts:AssumeRoleWithWebIdentity/, qr/token in file "\Q$dir\E\/web" is renewed/, 'a token that the issuer takes back', '28000');
$server->call('clear_faults');
file('web', '');
invalid(qr/the file "\Q$dir\E\/web" has no web identity token/, qr/./, 'an empty token file', '08006');
unlink "$dir/web";
invalid(qr/the web identity token in file "\Q$dir\E\/web" could not be read: No such file/, qr/./, 'no token file', '08006');
environment(%web, AWS_ROLE_ARN => undef);
refused({ sqlstate => 'F0000', detail => 'AWS_WEB_IDENTITY_TOKEN_FILE requires AWS_ROLE_ARN.' }, 'a token without a role');
file('web', $web_token);
$server->call('set_trust', arn => $role{web}, trust => anybody_may('sts:AssumeRoleWithWebIdentity', { Federated => 'arn:aws:iam::1:oidc-provider/x' }));
environment(%web);
invalid(qr/AccessDenied/, qr/trust policy allows sts:AssumeRoleWithWebIdentity/, 'a role that does not trust the issuer', '28000');
$server->call('set_trust', arn => $role{web}, trust => $by_token);

# The connector's own endpoint is not shown the token.
environment(%web, AWS_ENDPOINT_URL_STS => 'http://127.0.0.1:1');
sql("SET s3export.retry_timeout = '1s'; SELECT * FROM s3export.test_credentials(bucket => 'acme', auth_method => 'ambient', endpoint_url => " . sql_literal($server->url) . ')');
is(scalar($server->log), 0, 'the token goes to the STS of the environment, not to that of a connector');

# ---- containers
$server->call('set_container_role', role => $role{container}, authorization => $container_token);
environment(%container, AWS_CONTAINER_AUTHORIZATION_TOKEN => $container_token, %imds);
like(exported_by(), qr{:assumed-role/container/}, 'a container, which goes before an instance');
is(scalar($server->log(service => 'imds')), 0, 'the instance was not asked');
environment(%container, AWS_CONTAINER_AUTHORIZATION_TOKEN => 'wrong', AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE => file('token', "$container_token\n"));
like(exported_by(), qr{:assumed-role/container/}, 'with the token from a file');
file('token', "$container_token\r\nx-injected: yes\r\n");
like(exported_by(), qr{:assumed-role/container/}, 'of which the first line counts');
file('token', "a\tb");
invalid(qr/authorization token has characters that are not allowed/, qr/./, 'a token that is none', '08006');
environment(%container);
invalid(qr/The container's credentials service answered AccessDeniedException \(HTTP status 401\)|The container's credentials service answered with HTTP status 401/, qr/AWS_CONTAINER_AUTHORIZATION_TOKEN/, 'without the token');

foreach my $case (
	[ 'http://10.0.0.1/creds', qr/address 10\.0\.0\.1 is refused: it is not one of a container's credentials/, 'a private address' ],
	[ 'http://169.254.169.254/creds', qr/address 169\.254\.169\.254 is refused/, 'the metadata of the instance' ],
	[ 'http://[fe80::1]/creds', qr/address fe80::1 is refused/, 'another link-local address' ])
{
	environment(AWS_CONTAINER_CREDENTIALS_FULL_URI => $case->[0], AWS_CONTAINER_AUTHORIZATION_TOKEN => $container_token);
	invalid($case->[1], qr/./, "no token for $case->[2]", '08006');
}
foreach my $url ('ftp://127.0.0.1/x', 'http://user@127.0.0.1/x', '127.0.0.1/x', 'http://127.0.0.1/a b')
{
	environment(AWS_CONTAINER_CREDENTIALS_FULL_URI => $url);
	refused({ sqlstate => 'F0000', message => 'cannot use the ambient credentials in the environment (container)' }, "no URL: $url");
}
environment(AWS_CONTAINER_CREDENTIALS_RELATIVE_URI => 'v2/x');
refused({ sqlstate => 'F0000', detail => qr/begins with a slash/ }, 'no path');

# ---- instances
$server->call('set_instance_role', role => $role{instance});
environment(%imds);
like(exported_by(), qr{:assumed-role/instance/}, 'an instance');
is_deeply([ map { $_->{operation} } ($server->log(service => 'imds'))[ 0 .. 2 ] ], [qw(ImdsToken ImdsRole ImdsCredentials)], 'by version 2');
my @used = grep { $_->{service} eq 'imds' } $server->log;
is(scalar(keys %{ { map { $_->{connection} => 1 } @used } }), scalar(@used), 'on connections that nothing else uses');

# Every step, and what may come in place of its answer.
my %operation = (token => 'ImdsToken', role => 'ImdsRole', keys => 'ImdsCredentials');
my $elsewhere = 'http://127.0.0.1:' . $server->port('imds') . '/latest/elsewhere';
my $valid = '"AccessKeyId":"ASIAX","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"';
foreach my $case (
	[ token => { status => 404 }, 'version 1 only', qr/HTTP status 404/, qr/^Version 2 of the instance metadata service has to be enabled/ ],
	[ token => { status => 403 }, 'metadata that is off', qr/HTTP status 403/, qr/^Version 2/ ],
	[ token => { status => 200, body => "a\r\nx-injected: b" }, 'a token with a line feed', qr/no valid credentials/, qr/./ ],
	[ token => { status => 200, body => '' }, 'an empty token', qr/no valid credentials/, qr/./ ],
	[ token => { status => 200, body => '', pad => 2000000 }, 'a token of 2 MB', qr/no valid credentials|HTTP status 200/, qr/./ ],
	[ role => { status => 200, body => '<html><body>Log in</body></html>' }, 'a role that is HTML', qr/no valid credentials/, qr/./ ],
	[ role => { status => 200, body => '' }, 'no role', qr/no valid credentials/, qr/./ ],
	[ role => { status => 404 }, 'no role', qr/HTTP status 404/, qr/^Attach an instance profile/ ],
	[ role => { status => 302, headers => { Location => $elsewhere } }, 'a redirect', qr/HTTP status 302/, qr/./ ],
	[ keys => { status => 307, headers => { Location => $elsewhere } }, 'a redirect of the last', qr/HTTP status 307/, qr/./ ],
	[ keys => { status => 200, body => '{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role"}' }, 'a role that EC2 may not assume',
		qr/answered AssumeRoleUnauthorizedAccess .*EC2 cannot assume the role/, qr/./, '28000' ],
	[ keys => { status => 200, body => "{\"Code\":\"Failed\",$valid}" }, 'keys of a failure', qr/Failed/, qr/./ ],
	[ keys => { status => 200, body => "{\"Code\":\"Success\",$valid" }, 'JSON that is cut', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 200, body => '[' x 60000 }, 'JSON without a bottom', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 200, body => '{"a":' x 10000 . '1' . '}' x 10000 }, 'JSON that is deep', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 200, body => '{"Code":"Success",' . ($valid =~ s/"s"/"s\\r\\nx-injected: y"/r) . '}' }, 'a secret with a line feed', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 200, body => '{"Code":"Success",' . ($valid =~ s/2099/1999/r) . '}' }, 'keys that are over', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 200, body => '{"Code":"Success",' . ($valid =~ s/,"Expiration.*//r) . '}' }, 'keys without an end', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 200, body => '{"Code":"Success",' . ($valid =~ s/"Token":"t",//r) . '}' }, 'keys without a token', qr/no valid credentials/, qr/./ ],
	[ keys => { status => 500 }, 'an error that stays', qr/HTTP status 500/, qr/./ ])
{
	my ($step, $answer, $name, $detail, $hint, $sqlstate) = @$case;

	$server->call('clear_log');
	$server->call('add_fault', do => 'answer', match => { operation => $operation{$step} }, times => undef, %$answer);
	invalid($detail, $hint, $name, $sqlstate);
	$server->call('clear_faults');
	is(scalar(grep { $_->{operation} eq 'ImdsOther' || $_->{service} eq 's3' } $server->log), 0, "$name: nobody else was asked");
	is(scalar($server->log(operation => 'ImdsCredentials')), 0, "$name: no keys without a token") if $step eq 'token';
}
$server->call('add_fault', do => 'answer', match => { operation => 'ImdsCredentials' }, times => 2, status => 503);
like(exported_by(), qr{:assumed-role/instance/}, 'a fault that passes');

environment(%imds, AWS_EC2_METADATA_SERVICE_ENDPOINT => 'http://10.0.0.1');
invalid(qr/address 10\.0\.0\.1 is refused: it is not one of EC2's instance metadata/, qr/./, 'an endpoint elsewhere', '08006');
environment(%imds, AWS_EC2_METADATA_SERVICE_ENDPOINT => 'http://127.0.0.1:1');
invalid(qr/No answer came to the request for credentials/, qr/AWS_EC2_METADATA_DISABLED=true/, 'no instance', '08006');

# What is refused to everybody else stays so, where ambient credentials are allowed, too.
error_like($node, 'SELECT ' . connector_sql('x', endpoint_url => 'http://169.254.169.254', folder_path => 'x'),
	{ sqlstate => '08006', message => qr/^S3 cannot be used as configured/, detail => qr/address 169\.254\.169\.254 is refused: it is a link-local address/ }, 'S3 is not at such an address');

# The proxy is for others.
$node->append_conf('postgresql.conf', "s3export.proxy = 'http://127.0.0.1:1'");
environment(%imds);
refused({ sqlstate => '08006' }, 'no S3 through a proxy that is not there');
is(scalar(grep { $_->{worked} } $server->log(operation => 'ImdsCredentials')), 1, 'metadata is asked for past the proxy');
$node->append_conf('postgresql.conf', "s3export.proxy = ''");

# ---- and not any more
$node->append_conf('postgresql.conf', 's3export.allow_ambient_credentials = off');
environment(%keys);
error_like($node, "SELECT s3export.copy_to('$first', 'VALUES (1)', 'c.csv')", { sqlstate => '42501', message => 'ambient credentials are not allowed' }, 'a connector whose credentials are not allowed any more');
is(sql("SELECT DISTINCT credentials_missing FROM s3export.connectors"), 't', 'the view says so');

$server->stop;
done_testing();
