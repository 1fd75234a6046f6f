# What a hostile STS, and whoever writes to the server's environment and home
# directory, can make this server do: send requests elsewhere, put headers of
# their own into them, use keys that nobody has given it, or wait and grow.
use strict;
use warnings;
use lib 'test/lib';
use File::Path qw(make_path);
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(time);

my $directory = PostgreSQL::Test::Utils::tempdir();
my $s3 = scripted_s3();
my $trap = ScriptedS3->start;
my %keys = scripted_user($s3);
my %planted = scripted_user($s3);
my $node;

# Keys in every place where an AWS client looks for them, and where they should go.
make_path("$directory/.aws");
PostgreSQL::Test::Utils::append_to_file("$directory/.aws/credentials", "[default]\naws_access_key_id = $planted{access_key_id}\naws_secret_access_key = $planted{secret_access_key}\n");
PostgreSQL::Test::Utils::append_to_file("$directory/.aws/config", '[default]' . "\nregion = eu-west-1\nendpoint_url = " . $trap->url . "\n");
PostgreSQL::Test::Utils::append_to_file("$directory/.netrc", "default login $planted{access_key_id} password $planted{secret_access_key}\n");
PostgreSQL::Test::Utils::append_to_file("$directory/.curlrc", 'proxy = ' . $trap->url . "\n");
PostgreSQL::Test::Utils::append_to_file("$directory/token", 'token');
{
	local @ENV{qw(HOME CURL_HOME)} = ($directory) x 2;
	local @ENV{qw(AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION AWS_DEFAULT_REGION)} = (@planted{qw(access_key_id secret_access_key)}, ('eu-west-1') x 2);
	local @ENV{qw(AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE AWS_PROFILE NETRC)} = ("$directory/.aws/credentials", "$directory/.aws/config", 'default', "$directory/.netrc");
	local @ENV{qw(AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL_STS AWS_EC2_METADATA_SERVICE_ENDPOINT AWS_CONTAINER_CREDENTIALS_FULL_URI)} = ($trap->url) x 5;
	local @ENV{qw(AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE)} = ('arn:aws:iam::111122223333:role/planted', "$directory/token");
	local @ENV{qw(http_proxy https_proxy HTTPS_PROXY ALL_PROXY)} = ($trap->url) x 4;

	# At debug3 a postmaster writes its environment to its log.
	$node = s3export_node('main', 'log_min_messages = debug2', q(s3export.retry_timeout = '1s'), q(s3export.request_timeout = '2s'), q(s3export.stall_timeout = '2s'));
}

sub copy_sql
{
	return "SELECT rows FROM s3export.copy_to('$_[0]', 'SELECT 1', '$_[1]')";
}

sub trapped
{
	my $connections = $trap->call('stats')->{connections};

	return join ' ', grep { $connections->{$_}{accepted} } sort keys %$connections;
}

# ---- what is found around the server, where nobody has allowed it
{
	my @place = (at_endpoint($s3), validate => \'false');
	my $since = $s3->log;

	create_connector($node, 'lake', @place, %keys);
	is($node->safe_psql('postgres', copy_sql('lake', 'x.csv')), 1, 'an export among planted keys');
	is(join(' ', sort keys %{ { map { $_->{access_key_id} => 1 } $s3->log(since => $since) } }), $keys{access_key_id}, 'is signed with the key of its connector');
	is(join(' ', grep { $_->{region} && $_->{region} ne 'us-east-1' } $s3->log(since => $since)), '', 'for its region');
	$since = $s3->log;
	create_connector($node, 'role', @place, role_arn => 'arn:aws:iam::111122223333:role/exporter', sts_endpoint_url => $s3->url, folder_path => 'role');
	error_like($node, copy_sql('role', 'x.csv'), { sqlstate => '55000', message => qr/^there is no base identity/ }, 'a role without a base identity');
	error_like($node, 'SELECT ' . connector_sql('ambient', @place, access_key_id => undef, secret_access_key => undef, auth_method => 'ambient', folder_path => 'ambient', validate => \'true'),
		{ sqlstate => '42501', message => 'ambient credentials are not allowed' }, 'ambient credentials that are not allowed');
	is($node->safe_psql('postgres', 'SELECT account FROM s3export.identity()'), '', 'nor are they an identity');
	is(scalar(() = $s3->log(since => $since)), 0, 'and nothing is asked of anybody');
	is(trapped(), '', 'no connection goes where the environment says');
}

# ---- a hostile STS
my $hostile = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die "could not listen: $!";
my $ok = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\n\r\n";

# A process that gives each request what the block sends.  It ends without a word, whatever the test does at its own end.
my $server;

END { kill 'TERM', $server if defined $server }

sub answer_with
{
	my ($block) = @_;
	local $SIG{TERM} = 'DEFAULT';

	$server = fork() // die "could not fork: $!";
	return if $server;
	$SIG{PIPE} = $SIG{CHLD} = 'IGNORE';
	while (my $client = $hostile->accept)
	{
		next if fork();
		my $head = '';

		$client->autoflush(1);
		while ($head !~ /\r\n\r\n/)
		{
			sysread $client, $head, 65536, length $head or POSIX::_exit(0);
		}
		$block->(sub { return syswrite $client, $_[0] });
		$client->shutdown(1);
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}

# An answer to AssumeRole, with other elements in place of the right ones.
sub session
{
	my (%more) = @_;
	my %all = (AccessKeyId => 'ASIAHOSTILE000000001', SecretAccessKey => 'x' x 40, SessionToken => 'token', Expiration => '2099-01-01T00:00:00Z',
		Arn => 'arn:aws:sts::111122223333:assumed-role/exporter/s3export', %more);

	return $ok . ($all{prolog} // '') . '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser><Arn>' . $all{Arn} . '</Arn></AssumedRoleUser><Credentials>'
	  . join('', map { defined $all{$_} ? "<$_>$all{$_}</$_>" : '' } qw(AccessKeyId SecretAccessKey SessionToken Expiration))
	  . '</Credentials></AssumeRoleResult></AssumeRoleResponse>';
}

$node->safe_psql('postgres', "SELECT s3export.set_identity('$keys{access_key_id}', '$keys{secret_access_key}')");
$node->safe_psql('postgres', q(SELECT s3export.drop_connector('role')));
create_connector($node, 'role', at_endpoint($s3), role_arn => 'arn:aws:iam::111122223333:role/exporter', sts_endpoint_url => 'http://127.0.0.1:' . $hostile->sockport, folder_path => 'role', validate => \'false');

# What has the right form is tried, and S3 does not know the key; the rest never gets so far.
my $tried = qr/InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken/;
my $refused = qr/STS|could not get credentials/;
foreach my $case (
	[ 'keys that S3 does not know', session(), $tried ],
	[ 'a body without end', sub { my ($send) = @_; $send->("$ok<AssumeRoleResponse>"); my $n = 0; 1 while $send->('<x/>' x 20000) && ++$n < 10_000 }, $refused ],
	[ 'text without end', sub { my ($send) = @_; $send->("$ok<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>"); my $n = 0; 1 while $send->('A' x 65536) && ++$n < 10_000 }, $refused ],
	[ 'headers without end', sub { my ($send) = @_; $send->("HTTP/1.1 200 OK\r\n"); my $n = 0; 1 while $send->("x: y\r\n" x 1000) && ++$n < 100_000 }, $refused ],
	[ 'nothing', sub { sleep 30 }, $refused ],
	(map { [ "a redirect ($_)", "HTTP/1.1 $_ Away\r\nLocation: " . $trap->url . "/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", $refused ] } 301, 302, 303, 307, 308),
	[ 'a line feed in the token', session(SessionToken => "token&#10;x-amz-acl: public-read"), $refused ],
	[ 'a carriage return in the token', session(SessionToken => "token&#13;&#10;x-amz-acl: public-read"), $refused ],
	[ 'a line feed in the access key', session(AccessKeyId => "ASIA&#10;x-amz-acl: public-read"), $refused ],
	[ 'other characters in the access key', session(AccessKeyId => 'ASIA/, SignedHeaders=host'), qr/./ ],
	[ 'a token of 500 kB', session(SessionToken => 'x' x 500_000), qr/./ ],
	[ 'no token', session(SessionToken => undef), qr/./ ],
	[ 'empty keys', session(AccessKeyId => '', SecretAccessKey => ''), $refused ],
	[ 'no expiry', session(Expiration => undef), qr/./ ],
	[ 'a session that is over', session(Expiration => '1970-01-01T00:00:00Z'), qr/./ ],
	[ 'an expiry that is none', session(Expiration => '99999999999-99-99T99:99:99Z'), qr/./ ],
	[ 'an expiry beyond all', session(Expiration => '9999-12-31T23:59:59Z'), $tried ],
	[ 'an ARN of 100 kB', session(Arn => 'arn:aws:sts::1:assumed-role/' . 'x' x 100_000), qr/./ ],
	[ 'control characters in the ARN', session(Arn => "arn&#27;[2J&#10;x"), qr/./ ],
	[ 'entities', session(prolog => '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>', SessionToken => '&f;'), $refused ],
	[ 'entities that multiply', session(prolog => '<!DOCTYPE a [<!ENTITY a "' . 'x' x 1000 . '"><!ENTITY b "' . '&a;' x 1000 . '"><!ENTITY c "' . '&b;' x 1000 . '">]>', SessionToken => '&c;'), $refused ],
	[ 'XML that is nested deeply', $ok . '<a>' x 200_000, $refused ],
	[ 'HTML', "$ok<html><body>Log in</body></html>", $refused ],
	[ 'another answer', "$ok<GetCallerIdentityResponse/>", $refused ],
	[ 'bytes that are no UTF-8', session(SessionToken => "\xff\xfe\x80"), $refused ],
	[ 'an error with a long message', "HTTP/1.1 403 No\r\nConnection: close\r\n\r\n<ErrorResponse><Error><Code>" . 'C' x 5000 . '</Code><Message>' . "m&#10;&#27;" x 50_000 . '</Message></Error></ErrorResponse>', $refused ],
	[ 'an error that is a success', "$ok<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", $refused ])
{
	my ($what, $answer, $expected) = @$case;
	answer_with(ref $answer ? $answer : sub { $_[0]->($answer) });
	my $since = $s3->log;
	my $begun = time;
	my $error = sql_error($node, copy_sql('role', 'x.csv'));
	my $text = join ' ', map { $error->{$_} // '' } qw(message detail hint);

	like($error->{sqlstate} // 'none', qr/^(28000|08006|38000|57014|53400)$/, "$what: an error") or diag explain $error;
	like($text, $expected, "$what: which says why");
	cmp_ok(length $text, '<', 8000, "$what: shortly");
	unlike($text, qr/[\x00-\x09\x0b-\x1f\x7f]|root:/, "$what: in characters that are fit to be shown");
	cmp_ok(time - $begun, '<', 15, "$what: soon");
	is(join(' ', grep { defined } map { $_->{headers}{'x-amz-acl'} } $s3->log(since => $since)), '', "$what: no header of its own");
	is(trapped(), '', "$what: no connection goes elsewhere");
	kill 'TERM', $server;
	waitpid $server, 0;
	undef $server;
}
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 's3export%')), 0, 'no uploader is left');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC/, 'and none has crashed');

# ---- what a hostile store gives back to be sent again is short
{
	$s3->call('add_fault', do => 'header', set => { ETag => '"' . 'e' x 7000 . '"' }, match => { operation => 'UploadPart' }, times => undef);
	error_like($node, q(SET s3export.part_size = '5MB'; SELECT s3export.copy_to('lake', 'SELECT repeat($$x$$, 1024) FROM generate_series(1, 6000)', 'etag.csv')),
		{ sqlstate => '38000', message => qr/^could not upload part/ }, 'an ETag of 7 kB is none');
	$s3->call('clear_faults');
	is(scalar($s3->uploads('exports')), 0, 'and no upload is left');
}

keep_secrets($s3);
$node->stop;
$s3->stop;
$trap->stop;
done_testing();
