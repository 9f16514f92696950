# Flagcast's cache next to the gateway: the only tier, or the shield behind the edges of edge.vcl.
#
# This file says where the gateway is and who may purge; what is done with requests is the same in
# every tier and stands in flagcast-rules.vcl. README.md says how to run it.
vcl 4.1;

# The same gateway three times, because these are three pools: streams stay open and must not use up
# the connections of reads, and neither must wait for management or evaluation. A stream pool needs
# two connections for each environment. No probes: with one gateway there is nowhere else to go, and
# an error costs it one request a second anyway.

backend streams {
	.host = "127.0.0.1";
	.port = "8080";
	.max_connections = 2000;
	.connect_timeout = 1s;
	.first_byte_timeout = 5s;
	# Three heartbeats (`stream.cached_heartbeat_seconds`): a gateway that says nothing is gone.
	.between_bytes_timeout = 15s;
}

backend flags {
	.host = "127.0.0.1";
	.port = "8080";
	.max_connections = 500;
	.connect_timeout = 1s;
	.first_byte_timeout = 5s;
	.between_bytes_timeout = 5s;
}

backend others {
	.host = "127.0.0.1";
	.port = "8080";
	.max_connections = 500;
	.connect_timeout = 1s;
	.first_byte_timeout = 60s;
	.between_bytes_timeout = 60s;
}

# The gateway's address, if it purges (`cdn.purge = "varnish"`).
acl purgers {
	"127.0.0.1";
	"::1";
}

# Your own rules go before this line: VCL runs subroutines of one name in the order of the text.
include "./flagcast-rules.vcl";
