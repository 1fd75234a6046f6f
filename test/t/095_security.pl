# What a hostile user, name server or store can make this server do: where its
# requests go, what is in them, and what their answers cost.  A library below libc
# (resolver.c) answers for every name, and lets no connection leave this machine.
use strict;
use warnings;
use lib 'test/lib';
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Utils;
use S3Export;
use S3Faults;
use ScriptedS3;
use Test::More;
use Time::HiRes qw(time sleep);

my $dir = tempdir(CLEANUP => 1);
my ($hosts, $strays) = ("$dir/hosts", "$dir/strays");
my $library = "$dir/resolver.so";
my $complaint = '';
my $key_file = "$dir/key";

chmod 0755, $dir;
IPC::Run::run([ $ENV{CC} // 'cc', '-O2', '-shared', '-fPIC', '-o', $library, dirname(abs_path($0)) . '/../lib/resolver.c', '-ldl' ],
	'>', \$complaint, '2>&1') or die "could not compile resolver.c: $complaint";

my $s3 = scripted_s3();
my $trap = ScriptedS3->start;
my %keys = scripted_user($s3);
my $role = scripted_role($s3, 'exporter');
my $node;
names();
{
	# An environment in which nothing but the settings may decide where requests go.
	local @ENV{qw(LD_PRELOAD S3EXPORT_TEST_HOSTS S3EXPORT_TEST_CONNECTIONS)} = ($library, $hosts, $strays);
	local @ENV{qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY)} = ($trap->url) x 5;
	local @ENV{qw(AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3)} = ($trap->url) x 2;

	$node = s3export_node('main', q(s3export.retry_timeout = '0'), q(s3export.request_timeout = '2s'), q(s3export.stall_timeout = '2s'),
		q(s3export.part_size = '5MB'), 's3export.ca_file = ' . sql_literal((aws_settings($s3))[1] =~ /'(.*)'/));
}
$node->safe_psql('postgres', 'CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION s3export.create_connector TO alice');

# Names and their addresses, in place of those that were.
sub names
{
	my (%addresses) = @_;

	PostgreSQL::Test::Utils::append_to_file("$hosts.new", join '', map { "$_ $addresses{$_}\n" } sort keys %addresses);
	rename "$hosts.new", $hosts or die "could not rename $hosts.new: $!";
	return;
}

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# Connections that would have left this machine, and those that others than the store got.
sub strays
{
	my $connections = $trap->call('stats')->{connections};
	my @lines = -e $strays ? split(/\n/, slurp_file($strays)) : ();

	return join ' ', @lines, map { "trap:$_" } grep { $connections->{$_}{accepted} } sort keys %$connections;
}

# One test: nothing has gone astray since the beginning.
sub none_astray
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(strays(), '', "$what: no connection goes astray");
}

sub copy_sql
{
	my ($connector, $path, %more) = @_;

	return "SELECT * FROM s3export.copy_to('$connector', " . sql_literal($more{source} // 'VALUES (1)') . ', ' . sql_literal($path)
	  . join('', map { ", $_ => " . sql_literal($more{$_}) } grep { $_ ne 'source' } sort keys %more) . ')';
}

# What the requests since $since were for.
sub requests
{
	my ($since) = @_;

	return map { $_->{operation} } $s3->log(since => $since);
}

my $wide = 'SELECT repeat(md5(i::text), 32) FROM generate_series(1, 6000) i';

# ---- endpoints: what is no address of ours, in every spelling
my %refused = (
	'169.254.169.254' => 'a link-local address',
	'169.254.170.2' => 'a link-local address',
	'[::ffff:169.254.169.254]' => 'a link-local address',
	'[::ffff:a9fe:a9fe]' => 'a link-local address',
	'[::169.254.169.254]' => 'a link-local address',
	'[64:ff9b::a9fe:a9fe]' => 'a link-local address',
	'[fe80::1]' => 'a link-local address',
	'[fd00:ec2::254]' => 'an address of AWS\'s instance metadata',
	'0.0.0.0' => 'an unspecified address',
	'[::]' => 'an unspecified address',
	'[::ffff:0.0.0.0]' => 'an unspecified address');
foreach my $host (sort keys %refused)
{
	foreach my $scheme ('http', 'https')
	{
		error_like($node, 'SELECT ' . connector_sql('x', at_aws(), %keys, endpoint_url => "$scheme://$host:" . $s3->port),
			{ sqlstate => '08006', message => 'S3 cannot be used as configured: check "bucket" failed', detail => qr/address \S+ is refused: it is \Q$refused{$host}\E/ },
			"$scheme://$host is refused when it is connected to");
	}
	error_like($node, 'SELECT s3export.trust_policy(sts_endpoint_url => ' . sql_literal("http://$host") . ')',
		{ message => 'could not find out who the base identity is', detail => qr/address \S+ is refused: it is \Q$refused{$host}\E/ },
		"$host as that of STS", before => "SELECT s3export.set_identity('$keys{access_key_id}', '$keys{secret_access_key}');");
}
foreach my $url (
	'http://2852039166', 'http://0xa9fea9fe', 'http://0xa9.0xfe.0xa9.0xfe', 'http://0251.0376.0251.0376', 'http://169.254.43518',
	'http://169.16689662', 'http://127.1', 'http://0', 'http://169.254.169.254.', 'http://[fe80::1%25lo]', 'http://[::ffff:0xa9fea9fe]',
	'http://user@169.254.169.254', 'http://127.0.0.1:80@169.254.169.254', 'http://169.254.169.254#@127.0.0.1', 'http://169.254.169.254\\@127.0.0.1',
	'http://127.0.0.1/../169.254.169.254', 'http://127.0.0.1?@169.254.169.254', "http://127.0.0.1\r\nHost: evil", "http://127.0.0.1\t", 'http://127.0.0.1 ',
	"http://\x{ef}\x{bc}\x{91}27.0.0.1", 'http://%31%36%39.254.169.254', 'http://169.254.169.254:0x50', 'http://169.254.169.254:80:80',
	'file:///etc/passwd', 'gopher://127.0.0.1:25/_HELO', 'dict://127.0.0.1:11211/stat', 'ftp://127.0.0.1', 'ldap://127.0.0.1', 'telnet://127.0.0.1',
	'unix:///var/run/docker.sock', 'http+unix://%2Fvar%2Frun%2Fdocker.sock', '//169.254.169.254', 'http:169.254.169.254', 'http:/169.254.169.254', 'javascript:1')
{
	foreach my $argument ('endpoint_url', 'sts_endpoint_url')
	{
		error_like($node, 'SELECT ' . connector_sql('x', at_aws(), role_arn => $role, $argument => $url, validate => \'false'),
			{ sqlstate => '22023', message => qr/^invalid value for argument "$argument"/ }, "$argument: " . ($url =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger));
	}
}
none_astray('endpoints');

# ---- endpoints that a user may name: those of the list, and none that look like them
{
	my @listed = ('https://s3.good.example', 'http://store.good.example:9000');
	my $set = 'SET s3export.allowed_endpoints = ' . sql_literal(join ', ', @listed) . '; SET ROLE alice;';

	foreach my $url (@listed, 'HTTPS://S3.GOOD.example:443/', 'https://s3.good.example/')
	{
		is($node->safe_psql('postgres', "BEGIN; $set SELECT " . connector_sql('mine', at_aws(), %keys, endpoint_url => $url, validate => \'false') . ' > 0; ROLLBACK'),
			't', "$url is in the list");
	}
	foreach my $url (
		'https://s3.good.example.evil.com', 'https://evil.com.s3.good.example', 'https://s3.good.exampl', 'https://s3.good.example:8443', 'https://s3.good.example:80',
		'http://s3.good.example', 'http://s3.good.example:443', 'http://store.good.example', 'http://store.good.example:90', 'http://store.good.example:9001',
		'https://store.good.example:9000', 'https://good.example', 'https://S3.good.example.', 'https://s3.good.example@evil.com', 'https://s3.good.example/x',
		'https://evil.com?https://s3.good.example', 'https://*', '*', 'https://s3_good.example')
	{
		foreach my $argument ('endpoint_url', 'sts_endpoint_url')
		{
			my $code = sql_error($node, "$set SELECT " . connector_sql('mine', at_aws(), role_arn => $role, $argument => $url, validate => \'false'))->{sqlstate} // 'none';

			like($code, qr/^(42501|22023)$/, "$argument $url is not");
		}
	}
	foreach my $list ('https://*', '*.good.example', 'https://', '', ',', '*, https://s3.good.example', 'https://s3.good.example, *', 'https://"*"', '"https://evil.com')
	{
		error_like($node, 'SET s3export.allowed_endpoints = ' . sql_literal($list) . '; SET ROLE alice; SELECT '
			  . connector_sql('mine', at_aws(), %keys, endpoint_url => 'https://evil.com', validate => \'false'),
			{ sqlstate => '42501', message => 'permission denied for endpoint "https://evil.com"' }, "the list '$list' allows nothing else");
	}
}

# ---- settings that say where requests go, and how much they may take, are the administrator's
{
	my @settings = split /\n/, $node->safe_psql('postgres', q(LOAD 's3export'; SELECT name || ' ' || context FROM pg_settings WHERE name LIKE 's3export.%' ORDER BY 1));
	my @users = qw(s3export.fast_output s3export.max_parallel_workers s3export.progress_notice);
	my %value = ('s3export.allowed_endpoints' => '*', 's3export.allow_ambient_credentials' => 'on', 's3export.proxy' => $trap->url,
		's3export.ca_file' => '/dev/null', 's3export.key_file' => '/dev/null');

	cmp_ok(scalar @settings, '>', 10, 'there are settings');
	is_deeply([ map { /^(\S+) user$/ ? $1 : () } @settings ], \@users, 'three settings are for everybody');
	foreach my $setting (map { /^(\S+) (?!user$)/ ? $1 : () } @settings)
	{
		my $to = sql_literal($value{$setting} // 600);

		like(sql_error($node, "SET $setting = $to", user => 'alice', before => q(SELECT s3export.version();))->{sqlstate} // 'none', qr/^(42501|55P02)$/, "$setting: not by SET");
		# Before the library is loaded anybody may set anything: it must not last.
		foreach my $way ("SET $setting = $to;", "DO \$\$ BEGIN PERFORM set_config('$setting', $to, false); END \$\$;")
		{
			is($node->safe_psql('postgres', "$way DO 'BEGIN PERFORM s3export.version(); END'; SELECT count(*) FROM pg_settings WHERE name = '$setting' AND source NOT IN ('default', 'configuration file')",
					extra_params => [ '-U', 'alice' ]), '0', "$setting: not before the library is loaded, by " . ($way =~ /(SET|set_config)/)[0]);
		}
		{
			local $ENV{PGOPTIONS} = "-c $setting=" . ($value{$setting} // 600);
			is($node->safe_psql('postgres', "DO 'BEGIN PERFORM s3export.version(); END'; SELECT count(*) FROM pg_settings WHERE name = '$setting' AND source NOT IN ('default', 'configuration file')",
					extra_params => [ '-U', 'alice' ]), '0', "$setting: not by the client's options");
		}
	}
	foreach my $setting (qw(s3export.proxy s3export.ca_file s3export.key_file))
	{
		is($node->safe_psql('postgres', "DO 'BEGIN PERFORM s3export.version(); END'; SELECT count(*) FROM pg_settings WHERE name = '$setting'", extra_params => [ '-U', 'alice' ]),
			'0', "$setting is not shown to everybody");
	}
}

# ---- names that resolve to what must not be reached
names('store.test' => '127.0.0.1');
create_connector($node, 'named', %keys, bucket => 'exports', region => 'us-east-1', endpoint_url => 'http://store.test:' . $s3->port, addressing => 'path', folder_path => 'named');
is(sql(copy_sql('named', 'before.csv') =~ s/\*/rows/r), 1, 'a name that resolves to where the store is');
foreach my $address ('169.254.169.254', '::ffff:169.254.169.254', 'fd00:ec2::254', '0.0.0.0', 'fe80::1 169.254.169.254')
{
	my $since = $s3->log;

	names('store.test' => $address);
	error_like($node, copy_sql('named', "after-$address.csv"),
		{ sqlstate => '08006', message => qr/^could not look for object/, detail => qr/address \S+ is refused/ }, "bound to $address after it was tested: copy_to");
	is(sql(q(SELECT bool_or(ok), bool_or(message ~ 'address \S+ is refused') FROM s3export.test_credentials('named'))), 'f|t', "bound to $address after it was tested: test_credentials");
	is(scalar(requests($since)), 0, "bound to $address: nothing is sent");
}
foreach my $addresses ('169.254.169.254 127.0.0.1', '127.0.0.1 169.254.169.254')
{
	names('store.test' => $addresses);
	is(sql(copy_sql('named', "$addresses.csv") =~ s/\*/rows/r), 1, "of $addresses the one that may be is used");
}
none_astray('names');

# In the middle of an export, when its connections are lost.
{
	names('store.test' => '127.0.0.1');
	$s3->call('add_fault', do => 'stall', seconds => undef, when => 'body', at => 0, match => { operation => 'UploadPart', part => 1 });
	my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SET s3export.retry_timeout = 0; SET s3export.max_concurrent_parts = 1; '
			  . copy_sql('named', 'rebound.csv', source => $wide) ], '<', \undef, '>', \my $out, '2>', \my $err);
	$s3->call('wait', operation => 'UploadPart', count => 1, timeout => 30);
	names('store.test' => '169.254.169.254');
	$s3->call('listen', service => 's3', on => ScriptedS3::false);
	$s3->call('listen', service => 's3', on => ScriptedS3::true);
	$s3->call('clear_faults');
	$run->finish;
	none_astray('bound elsewhere in the middle of an export');
	names('store.test' => '127.0.0.1');
}

# AWS's own names: no address of this machine either.
create_connector($node, 'aws', at_aws(), %keys, region => 'us-east-1', validate => \'false');
create_connector($node, 'role', at_aws(), region => 'us-east-1', role_arn => $role, validate => \'false');
foreach my $address ('169.254.169.254', '127.0.0.1', '::1', '::ffff:127.0.0.1', '0.0.0.0', 'fd00:ec2::254')
{
	my $since = $s3->log;

	names(map { $_ => $address } qw(exports.s3.us-east-1.amazonaws.com s3.us-east-1.amazonaws.com sts.us-east-1.amazonaws.com));
	foreach my $connector ('aws', 'role')
	{
		error_like($node, copy_sql($connector, 'x.csv'), { sqlstate => '08006', detail => qr/address \S+ is refused/ }, "AWS at $address: connector $connector");
	}
	is(scalar(requests($since)), 0, "AWS at $address: nothing is sent");
}
names();
none_astray('AWS');

# ---- proxies: none from the environment, and none at an address that is refused
{
	$node->append_conf('postgresql.conf', q(s3export.proxy = 'http://proxy.test:3128'));
	$node->reload;
	names('proxy.test' => '169.254.169.254');
	error_like($node, copy_sql('aws', 'x.csv'), { detail => qr/address 169\.254\.169\.254 is refused: it is a link-local address/ }, 'a proxy at the instance metadata');
	none_astray('proxies');
	# From here on the scripted server is AWS.
	$node->append_conf('postgresql.conf', (aws_settings($s3))[0]);
	$node->reload;
	poll_until(sub { sql("SELECT s3export.version(); SHOW s3export.proxy") =~ /\Q@{[ $s3->url ]}\E$/ }, 'the setting');
}

# ---- redirects: never followed, by any request
{
	my $count = 0;
	my @requests = ([ 'aws', 'GetObject' ], [ 'aws', 'PutObject' ], [ 'role', 'AssumeRole' ],
		map { [ 'aws', $_, source => $wide ] } qw(CreateMultipartUpload UploadPart CompleteMultipartUpload));

	foreach my $case (map { my $request = $_; map { [ $_, @$request ] } $request->[1] eq 'PutObject' ? (300 .. 303, 305, 307, 308) : 307 } @requests)
	{
		my ($status, $connector, $operation, @more) = @$case;
		my $since = $s3->log;
		my $location = $trap->url . '/exports/stolen?X-Amz-Signature=x';

		$s3->call('add_fault', do => 'answer', status => $status, headers => { Location => $location, Refresh => "0; url=$location", 'Alt-Svc' => 'http/1.1="127.0.0.1:' . $trap->port . '"' },
			match => { operation => $operation }, times => undef);
		my $error = sql_error($node, copy_sql($connector, 'redirected' . ++$count, @more));
		like($error->{detail} // 'none', qr/HTTP status $status/, "$operation redirected with $status: the error");
		is(scalar(grep { $_->{host} !~ /\.amazonaws\.com$/ } $s3->log(since => $since)), 0, "$operation redirected with $status: nobody else is asked");
		$s3->call('clear_faults');
	}
	none_astray('redirects');
}

# ---- what the store says of itself: regions become part of a host's name
foreach my $region ("evil.com/", 'a.evil.com', 'x@evil.com', 'us-east-1#', 'us-east-1?', 'us-east-1:80', '169.254.169.254', '-', 'EU-WEST-1', 'a' x 64, 'us_east_1', '..', '%2e', "\x{c3}\x{a9}", 'eu-west-1 x')
{
	foreach my $fault (
		{ do => 'error', code => 'AuthorizationHeaderMalformed', headers => { 'x-amz-bucket-region' => $region } },
		{ do => 'error', code => 'AuthorizationHeaderMalformed', fields => { Region => $region } },
		{ do => 'error', code => 'PermanentRedirect', fields => { Endpoint => $region, Region => $region }, headers => { 'x-amz-bucket-region' => $region, Location => "https://$region/" } })
	{
		my $since = $s3->log;

		$s3->call('add_fault', %$fault, match => { service => 's3' }, times => undef);
		isnt(sql_error($node, copy_sql('aws', 'x.csv'))->{sqlstate}, undef, "region '$region', $fault->{code}: the export fails");
		is_deeply([ grep { $_ !~ /^exports\.s3\.us-east-1\.amazonaws\.com$/ } map { $_->{host} } $s3->log(since => $since) ], [], "region '$region', $fault->{code}: it is not asked");
		$s3->call('clear_faults');
	}
}
none_astray('regions');

# Upload ids and ETags come back in our requests: as what they are.
foreach my $id ('a&acl=x#y?z', '../../other?delete', 'a b+c%20d', '%0d%0aX: y', "<&\"'>")
{
	my $since = $s3->log;
	my $escaped = $id =~ s/&/&amp;/gr =~ s/</&lt;/gr;

	$s3->call('add_fault', do => 'answer', status => 200, match => { operation => 'CreateMultipartUpload' },
		body => "<InitiateMultipartUploadResult><UploadId>$escaped</UploadId></InitiateMultipartUploadResult>");
	isnt(sql_error($node, copy_sql('aws', 'upload.csv', source => $wide))->{sqlstate}, undef, "upload id '$id': the export fails");
	my %queries = map { join('&', map { my ($name, $value) = ($_, $_[0]{$_}); $name } sort keys %{ $_->{query} }) . " $_->{query}{uploadId}" => 1 }
	  grep { exists $_->{query}{uploadId} } $s3->log(since => $since);
	is_deeply([ sort keys %queries ], [ sort "uploadId $id", "partNumber&uploadId $id" ], "upload id '$id': in the query, whole and alone");
	is_deeply([ grep { $_->{signature} eq 'invalid' } $s3->log(since => $since) ], [], "upload id '$id': signed as it is sent");
	$s3->call('clear_faults');
}
{
	my $etag = '"</ETag></Part><Part><PartNumber>9</PartNumber><ETag>&x;"';

	$s3->call('add_fault', do => 'header', set => { ETag => $etag }, match => { operation => 'UploadPart', part => 1 });
	my $error = sql_error($node, copy_sql('aws', 'etag.csv', source => $wide));
	unlike("@{[ %$error ]}", qr/MalformedXML/, 'an ETag that is XML does not change the document');
	like($error->{detail} // '', qr/InvalidPart/, 'and is sent back as it came');
	$s3->call('clear_faults');
}

# ---- names: one request, to one key, or none
sub one_object
{
	my ($connector, $path, $folder) = @_;
	my $since = $s3->log;
	my $shown = $path =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger;
	my $error = sql_error($node, copy_sql($connector, $path));
	my @log = $s3->log(since => $since, service => 's3');

	utf8::decode(my $key = "$folder/$path");
	is_deeply($error, {}, "path '$shown' is a key");
	is_deeply([ map { "$_->{operation} $_->{key}" } @log ], [ "GetObject $key", "PutObject $key" ], "path '$shown': two requests, for that key");
	is_deeply([ grep { %{ $_->{query} } || $_->{signature} ne 'valid' || !$_->{canonical_path} || $_->{path} =~ m{[^\w/%.~-]|/\.{1,2}(/|$)|//} } @log ], [], "path '$shown': encoded, signed as it is sent");
	return;
}

{
	my %place = at_aws();
	my $folder = $place{folder_path};
	my $begun = $s3->log;

	create_connector($node, 'paths', %place, %keys, region => 'us-east-1', validate => \'false');
	one_object('paths', $_, $folder) foreach (
		'a?acl', 'a#b', 'a%2fb', '%2e%2e/a', '%2e%2e%2fa', '%252e%252e', 'a&b=c', 'a;b', 'a:b@c', 'a+b', 'a b', ' a', "a'b", 'a"b', '<a>&', 'a\\b', '..\\a', 'a|b', '`a`', '$(a)',
		'...', '..a', 'a..', '.a', 'a.', 'a/.../b', '%00', '%0d%0aX-Amz-Acl: public-read', '~', 'a*', 'http://127.0.0.1' =~ s{//}{/}r, "\x{c3}\x{a4}", "\x{c2}\x{85}", "\x{e2}\x{80}\x{ae}", "\x{f0}\x{9f}\x{98}\x{80}");
	foreach my $path ('', '/', '/a', 'a/', 'a//b', '.', '..', './a', '../a', 'a/..', 'a/../../b', 'a/.', 'a/./b', "a\nb", "a\r\nX-Amz-Acl: public-read", "a\tb", "a\x01", "a\x7f", 'x' x 1025)
	{
		my $since = $s3->log;

		error_like($node, copy_sql('paths', $path), { sqlstate => '22023', message => qr/^invalid value for argument "path"/ },
			'path \'' . substr($path =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger, 0, 40) . '\' is refused');
		is(scalar(requests($since)), 0, 'before a request');
		next if $path =~ m{^/?$|^/a$|^a/$};
		error_like($node, 'SELECT ' . connector_sql('x', at_aws(), %keys, folder_path => $path, validate => \'false'),
			{ sqlstate => '22023', message => qr/^invalid value for argument "folder_path"/ }, 'and as a folder');
	}
	error_like($node, "SELECT s3export.copy_to('paths', 'VALUES (1)', E'a\\x00b')", { sqlstate => '22021' }, 'there are no NULs');
	# Names that become part of a path: of a connector, and a column's with its values.
	foreach my $name ('..', '../..', 'a/../../b', '/')
	{
		create_connector($node, $name, %keys, bucket => 'exports', region => 'us-east-1', folder_path => "$folder/connector" . unpack('H*', $name), validate => \'false');
		foreach my $path ('{connector}/a.csv', '{connector}', 'x/{connector}/../../y.csv')
		{
			my $before = $s3->log;
			my $error = sql_error($node, copy_sql($name, $path));

			is_deeply([ grep { ($_->{key} // '') !~ m{^\Q$folder\E/connector[0-9a-f]+/.} || $_->{key} =~ m{(^|/)\.{0,2}(/|$)} } $s3->log(since => $before, service => 's3') ], [],
				"connector '$name' as $path: no request leaves its folder") or diag explain [ $error, map { $_->{key} } $s3->log(since => $before) ];
		}
	}
	foreach my $value ('..', '.', '', '/', '../../x', "a\r\nX-Amz-Acl: public-read", '%2e%2e%2f', 'a=b', "\x{c3}\x{a4}", "\x7f", '{job}')
	{
		foreach my $column ('p', '..', '../x', '/', "a\nb", '{part}', 'a=b')
		{
			my $before = $s3->log;
			my $error = sql_error($node, "SELECT * FROM s3export.copy_to('paths', " . sql_literal('SELECT ' . sql_literal($value) . "::text AS \"$column\", 1 AS a")
				  . ", 'hive.csv', partition_by => " . sql_literal($column) . ", manifest => true, if_exists => 'overwrite')");
			my @keys = map { $_->{key} // '' } $s3->log(since => $before, service => 's3');

			is_deeply([ grep { !m{^\Q$folder\E/([^/]+/)?_?hive[^/]*$} || m{/\.{0,2}(/|$)|[\x00-\x1f]} } @keys ], [], 'partition ' . ("$column=$value" =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger) . ': one folder')
			  or diag explain [ $error, \@keys ];
			ok(@keys > 0 || %$error, 'which there is, or an error');
		}
	}
	is_deeply([ grep { !/^\Q$folder\E\/./ } map { $_->{key} // '' } $s3->log(since => $begun, service => 's3') ], [], 'no request leaves the folder');
}

# Every argument that is text.  A new one has to be put into one of these lists.
{
	my %good = (bucket => 'exports', kind => 'data_export', access_key_id => $keys{access_key_id}, secret_access_key => $keys{secret_access_key}, session_token => 'FwoGZXIvYXdzTokenOfTheSecuritySuite',
		folder_path => 'x', region => 'us-east-1', endpoint_url => 'http://store.test:1', sts_endpoint_url => 'http://store.test:1', addressing => 'path', payload_signing => 'auto',
		expected_bucket_owner => '111122223333', server_side_encryption => 'aws:kms', kms_key_id => 'alias/x', storage_class => 'STANDARD', acl => 'private', content_type => 'text/csv', name => 'x');
	my %current = (compression => 'gzip', feed => 'shop', origin => 'none');
	# An interval may have white space around it, a publication any name, and a null string of files what a line may have;
	# no request has them in its head.
	my %elsewhere = (drop_after => '48 hours', heartbeat => '1 hour', publication => 'p', null => 'NULL');
	my %other = (role_arn => $role, secret_file => "$dir/secret", credentials_from => 'paths', auth_method => 'secret_key');
	my @arguments = split /\n/, sql(q(SELECT name FROM pg_proc, unnest(proargnames, proargtypes::oid[]) AS a(name, type)
		WHERE oid = 's3export.create_connector'::regproc AND type = 'text'::regtype ORDER BY 1));

	is_deeply(\@arguments, [ sort keys %good, keys %other, keys %current, keys %elsewhere ], 'the arguments that are text');
	foreach my $argument (grep { !exists $elsewhere{$_} } @arguments)
	{
		my %all = (%good, validate => \'false');

		if (exists $other{$argument})
		{
			delete $all{session_token};
			$all{secret_access_key} = undef;
			delete $all{access_key_id} unless $argument eq 'secret_file';
			%all = (%all, $argument => $other{$argument});
		}
		%all = (%all, kind => 'currents', $argument => $current{$argument}) if exists $current{$argument};
		foreach my $more ("\r\nx-amz-acl: public-read", "\n", "\t", "\x01", "\x7f")
		{
			my %wrong = (%all, $argument => $all{$argument} . $more);
			my $name = delete $wrong{name};
			my $code = sql_error($node, 'SELECT ' . connector_sql($name, %wrong, exists $wrong{access_key_id} ? () : (role_arn => $wrong{role_arn}, access_key_id => undef, secret_access_key => undef)))->{sqlstate} // 'none';

			# A file, or a connector, of such a name does not exist.
			like($code, $argument eq 'secret_file' ? qr/^58P01$/ : $argument eq 'credentials_from' ? qr/^42704$/ : qr/^22023$/,
				"$argument with " . ($more =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger));
		}
	}
}

# What may hold anything, in a header: encoded.
{
	my $since = $s3->log;
	my %tags = ("a\r\nX-Amz-Acl" => "public-read\r\n\r\nGET / HTTP/1.1", "b&c=d" => '?&#%', "\x{c3}\x{a4}" => "\t\x7f");
	my $json = JSON::PP->new->ascii->encode({ map { utf8::decode(my $text = $_); $text } %tags });

	is_deeply(sql_error($node, copy_sql('paths', 'tags.csv', tags => $json)), {}, 'tags of any characters');
	my ($put) = $s3->log(since => $since, operation => 'PutObject');
	is(join('&', sort split /&/, $put->{headers}{'x-amz-tagging'}),
		join('&', sort map { my @pair = ($_, $tags{$_}); join '=', map { s/([^\w.~-])/sprintf '%%%02X', ord $1/ger } @pair } keys %tags), 'are encoded');
	is($put->{headers}{'x-amz-acl'}, undef, 'and are no other header');
}

# ---- files: who may name them, and which
{
	my $file = "$dir/readable";

	PostgreSQL::Test::Utils::append_to_file($file, "$keys{secret_access_key}\n");
	symlink $file, "$dir/link";
	error_like($node, "SELECT s3export.create_connector('f', 'exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '$_', validate => false)",
		{ sqlstate => '42501', message => 'permission denied to read a secret from a file' }, "secret_file $_ by anybody", user => 'alice')
	  foreach ($file, "$dir/link", "$dir/missing", '/etc/passwd', $node->data_dir . '/s3export.key', '../x');
	# What a file holds is never shown.
	my $said = join ' ', %{ sql_error($node, "SELECT s3export.create_connector('f', 'exports', access_key_id => 'AKIAIOSFODNN7EXAMPLE', secret_file => '/etc/passwd', validate => false)") };
	unlike($said, qr/root:/, 'the content of a file that is no secret is not shown');

	my $key = $node->data_dir . '/s3export.key';
	is(sprintf('%04o', (stat $key)[2] & 07777), '0600', 'the key file is for the server alone');
	foreach my $mode (0640, 0604, 0660, 0666)
	{
		chmod $mode, $key;
		error_like($node, copy_sql('paths', 'mode.csv'), { sqlstate => 'F0000', message => qr/^key file ".*" has group or world access$/ }, sprintf('a key file of mode %04o is not used', $mode));
	}
	chmod 0600, $key;
	rename $key, $key_file;
	symlink $key_file, $key;
	is(sql(copy_sql('paths', 'link.csv') =~ s/\*/rows/r), 1, 'a symbolic link to a key file');
	chmod 0644, $key_file;
	error_like($node, copy_sql('paths', 'mode.csv'), { sqlstate => 'F0000', message => qr/has group or world access$/ }, 'is judged by what it leads to');
	chmod 0600, $key_file;
	unlink $key;
	symlink "$dir/nowhere", $key;
	error_like($node, "SELECT s3export.set_credentials('paths', '$keys{access_key_id}', '$keys{secret_access_key}', validate => false)", { sqlstate => qr/^(58P01|42710)$/ }, 'no key is made through a link to nowhere');
	ok(!-e "$dir/nowhere", 'and nothing there');
	unlink $key;
	rename $key_file, $key;
}

# ---- a store that answers without an end, or at its leisure
my $hostile = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die "could not listen: $!";
my $hostile_url = 'http://127.0.0.1:' . $hostile->sockport;
create_connector($node, 'hostile', %keys, bucket => 'exports', region => 'us-east-1', endpoint_url => $hostile_url, folder_path => 'hostile', addressing => 'path', validate => \'false');
$node->append_conf('postgresql.conf', q(s3export.proxy = ''));
$node->reload;
poll_until(sub { sql("SELECT s3export.version(); SHOW s3export.proxy") !~ /http/ }, 'the setting');

# Lets a process answer each request as a block of ours does until the peer hangs
# up, or only PUTs after other requests went well; returns it.  What a block sends
# is counted in a file.
sub answer_with
{
	my ($block, $is_good) = @_;
	my $pid = fork() // die "could not fork: $!";

	return $pid if $pid;
	$SIG{PIPE} = 'IGNORE';
	$SIG{CHLD} = 'IGNORE';
	while (my $client = $hostile->accept)
	{
		next if fork();
		my $sent = 0;
		my $head = '';

		$client->autoflush(1);
		while ($head !~ /\r\n\r\n/)
		{
			sysread $client, $head, 65536, length $head or POSIX::_exit(0);
		}
		if ($is_good && $head =~ /^HEAD|^GET/)
		{
			print $client "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
			POSIX::_exit(0);
		}
		$block->(sub {
				my ($data, $pause) = @_;
				my $n = syswrite $client, $data;

				sleep $pause if $pause;
				$sent += $n if $n;
				return $n;
			});
		open my $log, '>>', "$dir/sent";
		print $log "$sent\n";
		close $log;
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}

sub most_sent
{
	my @sent = sort { $b <=> $a } split /\n/, slurp_file("$dir/sent");

	return $sent[0];
}

my $ok = "HTTP/1.1 200 OK\r\n";
foreach my $case (
	[ 'headers without end', sub { my ($send) = @_; $send->($ok); my $n = 0; 1 while $send->('x-amz-meta-' . ++$n . ': ' . 'x' x 4000 . "\r\n") && $n < 100_000 } ],
	[ 'small headers without end', sub { my ($send) = @_; $send->($ok); my $n = 0; 1 while $send->("x: y\r\n" x 1000) && ++$n < 100_000 } ],
	[ 'a header without end', sub { my ($send) = @_; $send->($ok . 'x: '); my $n = 0; 1 while $send->('x' x 65536) && ++$n < 10_000 } ],
	[ 'a status line without end', sub { my ($send) = @_; $send->('HTTP/1.1 200 '); my $n = 0; 1 while $send->('x' x 65536) && ++$n < 10_000 } ],
	[ 'interim answers without end', sub { my ($send) = @_; my $n = 0; 1 while $send->("HTTP/1.1 100 Continue\r\n\r\n" x 100, 0.01) && ++$n < 100_000 } ],
	[ 'a body without end', sub { my ($send) = @_; $send->($ok . "Content-Type: application/xml\r\n\r\n<Error>"); my $n = 0; 1 while $send->('<x>' x 20000) && ++$n < 10_000 } ],
	[ 'a chunked body without end', sub { my ($send) = @_; $send->("HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"); my $n = 0; 1 while $send->("ffff\r\n" . 'x' x 65535 . "\r\n") && ++$n < 10_000 } ],
	[ 'trailers without end', sub { my ($send) = @_; $send->("HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"); my $n = 0; 1 while $send->("x: y\r\n" x 1000) && ++$n < 100_000 } ],
	[ 'headers, one a second', sub { my ($send) = @_; $send->($ok); my $n = 0; 1 while $send->("x: y\r\n", 0.5) && ++$n < 120 } ],
	[ 'a body, one byte a second', sub { my ($send) = @_; $send->($ok . "Content-Length: 1000\r\n\r\n"); my $n = 0; 1 while $send->(' ', 0.5) && ++$n < 120 } ],
	[ 'lengths that contradict each other', sub { $_[0]->("HTTP/1.1 500 Oh\r\nContent-Length: 1\r\nContent-Length: 99\r\n\r\nx") } ],
	[ 'a length that is no number', sub { $_[0]->("HTTP/1.1 500 Oh\r\nContent-Length: -1\r\n\r\nx") } ],
	[ 'a length beyond all', sub { $_[0]->("HTTP/1.1 500 Oh\r\nContent-Length: 99999999999999999999999\r\n\r\nx") } ],
	[ 'a chunk of a length beyond all', sub { $_[0]->("HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx") } ],
	[ 'no HTTP', sub { $_[0]->("\0\1\2\3SSH-2.0-OpenSSH\r\n\r\n") } ],
	[ 'an answer of HTTP/0.9', sub { $_[0]->("<Error><Code>NoSuchBucket</Code></Error>") } ],
	[ 'another protocol', sub { $_[0]->("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello") } ],
	[ 'a bomb that is compressed', sub { $_[0]->("HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\3" . "\xff" x 10) } ],
	[ 'XML that is nested deeply', sub { $_[0]->("HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n<Error>" . '<a>' x 200_000) } ],
	[ 'XML that multiplies', sub { $_[0]->("HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\n<!DOCTYPE a [<!ENTITY a \"" . 'x' x 1000 . '"><!ENTITY b "' . '&a;' x 1000 . '"><!ENTITY c "' . '&b;' x 1000 . "\">]><Error><Code>&c;</Code></Error>") } ])
{
	my ($what, $block) = @$case;

	foreach my $is_good (0, 1)
	{
		my $begun = time;
		my $pid;

		unlink "$dir/sent";
		$pid = answer_with($block, $is_good);
		my $error = sql_error($node, copy_sql('hostile', 'x.csv'));
		my $request = $is_good ? 'PutObject' : 'HeadObject';

		like(join(' ', map { $error->{$_} // '' } qw(sqlstate message detail)), qr/^(08006|38000|57014|53400) could not (look for|upload) object/, "$what, to $request: the error") or diag explain $error;
		cmp_ok(time - $begun, '<', 20, "$what, to $request: soon");
		poll_until(sub { -e "$dir/sent" }, 'the end of an answer');
		cmp_ok(most_sent(), '<', 16e6, "$what, to $request: without reading it all");
		kill 'TERM', $pid;
		waitpid $pid, 0;
	}
}
is(sql('SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE \'s3export%\''), 0, 'no uploader is left');
none_astray('hostile answers');

keep_secrets($s3);
$node->stop;
$s3->stop;
$trap->stop;
done_testing();
