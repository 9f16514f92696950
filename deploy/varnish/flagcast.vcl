# Flagcast's cache, the same in every tier: the only one, a shield next to the gateway, or an edge in front
# of a shield. Only the addresses of the three backends and of who may purge are yours to set.
#
# Streams are cached like slow downloads: whoever asks while one is under way joins it, so the gateway
# sees one stream for each environment. Reads after a ping name the revision, so each is fetched once.
# Everything here keeps those two true whatever clients send and the gateway answers. README.md says how
# to run it, and what each rule is for.
#
# `Flagcast-Kind` names what a request is, for the later subroutines:
#   stream  an event stream, of either dialect
#   flags   GET /sdk/v1/environments/{client_key}/flags[?rev=N]
#   list    GET /api/v1/flags/, whose environment is named by a header
#   file    /client.js
# A request of another kind is passed on.
vcl 4.1;

import purge;
import std;

# The gateway, or at an edge the shield: the same address three times, because these are three pools.
# Streams stay open and must not use up the connections of reads, and neither must wait for management or
# evaluation. A stream pool needs two connections for each environment and tier in front. No probes: with
# one gateway there is nowhere else to go, and an error costs it one request a second anyway.

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

sub vcl_recv {
	# A word of this file; a client has no say in it.
	unset req.http.Flagcast-Kind;
	set req.backend_hint = others;

	if (req.method == "PURGE") {
		call flagcast_purge;
	}
	if (req.method !~ "^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$") {
		# The built-in rules would open a pipe for methods that they do not know.
		return (synth(405));
	}
	if (req.method == "OPTIONS" && req.url ~ "^/(sse|sdk|ofrep|api/v1)/") {
		return (synth(204));
	}
	call flagcast_kind;
	if (!req.http.Flagcast-Kind) {
		return (pass);
	}

	# What distinguishes one client from another must not reach the answer that all of them share:
	# built-in rules would pass cookies and authorization, the gateway must not see whose request
	# opened a stream, and a page must not get the headers of another page.
	unset req.http.Cookie;
	unset req.http.Authorization;
	unset req.http.Last-Event-ID;
	unset req.http.Range;
	unset req.http.Cache-Control;
	unset req.http.Pragma;
	unset req.http.Origin;
	unset req.http.Referer;
	unset req.http.If-Modified-Since;
	if (req.http.Flagcast-Kind != "list") {
		unset req.http.X-Environment-Key;
	}
	if (req.http.Flagcast-Kind == "stream") {
		unset req.http.Accept-Encoding;
		unset req.http.If-None-Match;
		set req.http.Accept = "text/event-stream";
		set req.backend_hint = streams;
	} else {
		set req.backend_hint = flags;
	}
	return (hash);
}

# Says what the request is, and leaves in the URL only what names the answer.
sub flagcast_kind {
	if (req.url ~ "^/sse/environments/[^/?]+/stream(\?|$)" ||
	    req.url ~ "^/ofrep/v1/streams/[^/?]+(\?|$)") {
		if (req.method != "GET") {
			# The built-in rules would make a whole stream of a HEAD.
			return (synth(405));
		}
		set req.url = regsub(req.url, "\?.*$", "");
		set req.http.Flagcast-Kind = "stream";
	} elsif (req.method != "GET" && req.method != "HEAD") {
		return;
	} elsif (req.url ~ "^/sdk/v1/environments/[^/?]+/flags(\?|$)") {
		if (req.url ~ "[?&]rev=0*[0-9]{1,19}(&|$)") {
			set req.url = regsub(req.url, "\?(.*&)?rev=0*([0-9]{1,19})(&.*)?$", "?rev=\2");
		} elsif (req.url ~ "[?&]rev(=|&|$)") {
			# Not without `rev`: a read that asks for a revision must not get an older one.
			return (synth(400));
		} else {
			set req.url = regsub(req.url, "\?.*$", "");
		}
		set req.http.Flagcast-Kind = "flags";
	} elsif (req.url ~ "^/api/v1/flags/?(\?|$)") {
		# A single feature is somebody's own question, and so is what comes with credentials.
		if (req.url ~ "\?.*(feature|%)" || req.http.Authorization) {
			return;
		}
		set req.url = "/api/v1/flags/";
		# Once only: the gateway and the hash must read the same key.
		if (req.http.X-Environment-Key) {
			set req.http.X-Environment-Key = req.http.X-Environment-Key;
		}
		set req.http.Flagcast-Kind = "list";
	} elsif (req.url ~ "^/client\.js(\?|$)") {
		set req.url = "/client.js";
		set req.http.Flagcast-Kind = "file";
	}
}

# PURGE /sdk/v1/environments/{client_key}/flags with `Surrogate-Key: flags-{client_key}` forgets the
# unpinned reads of an environment. Any other path with a Surrogate-Key forgets what carries that key.
sub flagcast_purge {
	# Behind a proxy of this machine everybody has its address; the proxy's header gives them away.
	if (client.ip !~ purgers || req.http.X-Forwarded-For ~ ",") {
		return (synth(403));
	}
	if (req.http.Surrogate-Key && req.restarts == 0) {
		if (req.http.Surrogate-Key !~ "^[A-Za-z0-9_-]+$") {
			return (synth(400));
		}
		ban("obj.http.Surrogate-Key ~ (^|\s)" + req.http.Surrogate-Key + "(\s|$)");
	}
	if (req.url ~ "^/sdk/v1/environments/[^/?]+/flags(\?|$)") {
		set req.url = regsub(req.url, "\?.*$", "");
		set req.http.Flagcast-Kind = "flags";
	} elsif (req.restarts > 0) {
		set req.http.Flagcast-Kind = "list";
	} else {
		return (synth(200));
	}
	# By the hash, and not return (purge): the lookup waits for a fetch that is under way, whose
	# answer may be the old one. A ban and return (purge) do not see it.
	return (hash);
}

# Forgets what the lookup found, first the read by path, then the one by header.
sub flagcast_forget {
	purge.hard();
	if (req.restarts == 0) {
		set req.http.X-Environment-Key =
		    regsub(req.url, "^/sdk/v1/environments/([^/]+)/flags$", "\1");
		set req.url = "/api/v1/flags/";
		return (restart);
	}
	return (synth(200));
}

sub vcl_hit {
	if (req.method == "PURGE") {
		call flagcast_forget;
	}
}

sub vcl_miss {
	if (req.method == "PURGE") {
		call flagcast_forget;
	}
}

# Without the host: one gateway may have many names, and a client can send any.
sub vcl_hash {
	if (req.http.Flagcast-Kind) {
		hash_data(req.url);
		if (req.http.Flagcast-Kind == "list") {
			hash_data(req.http.X-Environment-Key);
		}
		return (lookup);
	}
}

sub vcl_backend_fetch {
	if (bereq.http.Flagcast-Kind) {
		# Varnish puts the backend's own name here (`.host_header`, or else `.host`).
		unset bereq.http.Host;
		# The first client's, who is one of very many. It is kept until here for the log and vcl_synth.
		unset bereq.http.User-Agent;
	}
	if (bereq.http.Flagcast-Kind == "stream") {
		# Varnish asks for gzip by itself, and a compressed stream comes when it ends.
		unset bereq.http.Accept-Encoding;
	}
}

sub vcl_backend_response {
	if (!bereq.http.Flagcast-Kind) {
		# Passed: nothing is kept of it.
		return (deliver);
	}
	# Nothing stale, ever: an old stream is a recording that ends at once, and an old flag set is wrong.
	set beresp.grace = 0s;
	set beresp.keep = 0s;
	unset beresp.http.Set-Cookie;

	if (beresp.status != 200) {
		# A herd costs one request a second. The built-in rules would send all of it on for two minutes.
		unset beresp.http.Vary;
		set beresp.ttl = 1s;
		return (deliver);
	}
	# `Age` of the tier behind is in the time to live already; it is only set where no header says it.
	if (beresp.http.Cache-Control !~ "max-?age=" ||
	    beresp.http.Cache-Control ~ "no-store|no-cache|private") {
		set beresp.ttl = 0s;
	}
	if (bereq.http.Flagcast-Kind == "stream") {
		set beresp.do_stream = true;
		set beresp.do_gzip = false;
		set beresp.do_gunzip = true;
		unset beresp.http.Vary;
		unset beresp.http.ETag;
		unset beresp.http.Last-Modified;
	} elsif (bereq.http.Flagcast-Kind == "list") {
		call flagcast_keep_list;
	} else {
		set beresp.http.Vary = "Accept-Encoding";
	}
	if (beresp.ttl < 1s) {
		if (bereq.http.Flagcast-Kind == "stream" || bereq.url ~ "\?rev=") {
			# Whatever the gateway says: a stream for each client is the end of it, and a
			# revision does not change.
			set beresp.ttl = 1s;
		} elsif (beresp.ttl <= 0s) {
			# A gateway without an echo wants no read kept that a change makes old.
			set beresp.uncacheable = true;
			set beresp.ttl = 1s;
		}
	}
	return (deliver);
}

# Flags whose environment is named by a header are `private`: a cache that does not obey `Vary` would
# serve one environment's flags to another. Here the key is in the hash, and the gateway allows it by a
# word that only these rules know, for this tier and those in front.
sub flagcast_keep_list {
	if (beresp.http.Flagcast-Keep) {
		set beresp.ttl = 1s - beresp.age;
	}
	set beresp.http.Vary = "X-Environment-Key, Accept-Encoding";
}

# No answer from the gateway. Kept for a second, so that a herd costs one attempt.
sub vcl_backend_error {
	set beresp.ttl = 1s;
	set beresp.grace = 0s;
	set beresp.keep = 0s;
	set beresp.http.Access-Control-Allow-Origin = "*";
	set beresp.http.Cache-Control = "no-store";
	set beresp.http.Retry-After = "1";
	set beresp.http.Content-Type = "application/problem+json";
	set beresp.body = """{"type":"about:blank","status":503,"title":"Service Unavailable",""" +
	    """"code":"origin_unavailable","detail":"the gateway does not answer; try again in a moment"}""";
	return (deliver);
}

sub vcl_deliver {
	if (req.http.Flagcast-Kind == "stream" && resp.status != 200) {
		return (synth(503));
	}
	set resp.http.Flagcast-Cache = "MISS";
	if (obj.uncacheable) {
		set resp.http.Flagcast-Cache = "PASS";
	} elsif (obj.hits > 0) {
		set resp.http.Flagcast-Cache = "HIT";
	}
	# One word for each tier, the one next to the gateway first.
	if (resp.http.X-Cache) {
		set resp.http.X-Cache = resp.http.X-Cache + ", " + resp.http.Flagcast-Cache;
	} else {
		set resp.http.X-Cache = resp.http.Flagcast-Cache;
	}
	unset resp.http.Flagcast-Cache;
	if (!req.http.X-Varnish && !req.http.CDN-Loop && !req.http.Fastly-FF) {
		# No tier in front of this one.
		unset resp.http.Surrogate-Key;
		unset resp.http.Flagcast-Keep;
	}
	return (deliver);
}

# There is no stream to give, and each client is told so in the way that makes it come back calmly.
sub flagcast_no_stream {
	set resp.http.Cache-Control = "no-store";
	set resp.http.Content-Type = "text/event-stream";
	if (!req.http.X-Varnish && (req.url ~ "^/ofrep/" || req.http.User-Agent ~ "^Mozilla/")) {
		# Browsers give up for ever after an error status; they obey `retry`.
		set resp.status = 200;
		set resp.reason = "OK";
		set resp.body = "retry: " + std.integer(real=std.random(2000, 8000)) + """

""";
		return (deliver);
	}
	# Flagsmith's SDKs do not know `retry`, and after an empty stream some of them come back at once,
	# hundreds of times a second. After an error they wait; Python's after an event that it cannot read.
	set resp.http.Retry-After = "1";
	set resp.body = """data: {}

""";
	return (deliver);
}

sub vcl_synth {
	set resp.http.Access-Control-Allow-Origin = "*";
	if (req.http.Flagcast-Kind == "stream") {
		call flagcast_no_stream;
	}
	if (resp.status == 204) {
		# What the gateway answers to a preflight.
		set resp.http.Access-Control-Allow-Methods = "GET, HEAD, POST, PUT, OPTIONS";
		set resp.http.Access-Control-Allow-Headers = "accept, authorization, baggage, cache-control, content-type, " +
		    "flagsmith-application-name, flagsmith-application-version, flagsmith-sdk-user-agent, " +
		    "if-none-match, last-event-id, origin, sentry-trace, traceparent, tracestate, user-agent, " +
		    "x-api-key, x-csrftoken, x-environment-key, x-requested-with";
		set resp.http.Access-Control-Max-Age = "86400";
		return (deliver);
	}
	if (resp.status == 405) {
		set resp.http.Allow = "GET, OPTIONS";
	}
	set resp.http.Content-Type = "application/problem+json";
	set resp.body = """{"type":"about:blank","status":""" + resp.status + """}""";
	return (deliver);
}
