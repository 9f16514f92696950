# A cache at the edge: its origin is the shield, which runs flagcast.vcl next to the gateway.
#
# Only the addresses and the pools differ. Any number of edges costs the gateway what one shield costs.
vcl 4.1;

backend streams {
	.host = "127.0.0.1";
	.port = "6081";
	.max_connections = 2000;
	.connect_timeout = 1s;
	.first_byte_timeout = 5s;
	.between_bytes_timeout = 15s;
}

backend flags {
	.host = "127.0.0.1";
	.port = "6081";
	.max_connections = 500;
	.connect_timeout = 1s;
	.first_byte_timeout = 5s;
	.between_bytes_timeout = 5s;
}

backend others {
	.host = "127.0.0.1";
	.port = "6081";
	.max_connections = 500;
	.connect_timeout = 1s;
	.first_byte_timeout = 60s;
	.between_bytes_timeout = 60s;
}

# The gateway's address, if it purges. It purges the shield first.
acl purgers {
	"127.0.0.1";
	"::1";
}

include "./flagcast-rules.vcl";
