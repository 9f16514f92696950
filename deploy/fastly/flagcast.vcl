# What Fastly does with Flagcast's requests, the same at the edge and at the shield.
#
# Streams are cached like slow downloads (streaming miss and request collapsing): whoever asks while
# one is under way joins it, so the gateway sees one stream for each environment. Reads after a ping
# name the revision, so each is fetched once. Everything here keeps those two true whatever clients
# send and the gateway answers. `main.tf` holds the backends and which request goes to which;
# README.md says what has been tested, and how.
#
# `Flagcast-Kind` names what a request is, for the later subroutines:
#   stream  an event stream, of either dialect
#   flags   GET /sdk/v1/environments/{client_key}/flags[?rev=N]
#   list    GET /api/v1/flags/, whose environment is named by a header
#   file    /client.js
# A request of another kind is passed on.
#
# Nothing here may restart, ignore busy objects or switch clustering off: each ends the collapse.

sub vcl_recv {
  # Words of this file; a client has no say in them. They come before the macro, which selects the
  # backend by them.
  unset req.http.Flagcast-Kind;
  unset req.http.Fastly-No-Shield;
  call flagcast_kind;

#FASTLY recv

  if (req.method == "FASTLYPURGE") {
    # Else anybody may purge a URL.
    set req.http.Fastly-Purge-Requires-Auth = "1";
  }
  if (req.method == "OPTIONS" && req.url ~ "^/(sse|sdk|ofrep|api/v1)/") {
    error 604 "preflight";
  }
  if (!req.http.Flagcast-Kind) {
    return(pass);
  }
  if (req.http.Flagcast-Kind == "stream" && req.method == "HEAD") {
    # A miss would make a whole stream of it.
    error 605 "method";
  }
  if (req.http.Flagcast-Kind == "flags" && req.url ~ "\?" && req.url !~ "\?rev=[0-9]+$") {
    # Not without `rev`: a read that asks for a revision must not get an older one.
    error 606 "revision";
  }

  # Nothing stale, ever: an old stream is a recording that ends at once, and an old flag set is wrong.
  set req.max_stale_while_revalidate = 0s;
  set req.max_stale_if_error = 0s;
  # Segments are for large files.
  set req.enable_segmented_caching = false;

  # What distinguishes one client from another must not reach the answer that all of them share: the
  # gateway must not see whose request opened a stream, and a page must not get another page's headers.
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
  } else {
    call flagcast_encoding;
  }
  return(lookup);
}

# Says what the request is, and leaves in the URL only what names the answer.
sub flagcast_kind {
  if (req.method == "GET" || req.method == "HEAD" || req.method == "FASTLYPURGE") {
    if (req.url ~ "^/sse/environments/[^/?]+/stream(\?|$)" ||
        req.url ~ "^/ofrep/v1/streams/[^/?]+(\?|$)") {
      set req.url = req.url.path;
      set req.http.Flagcast-Kind = "stream";
    } elsif (req.url ~ "^/sdk/v1/environments/[^/?]+/flags(\?|$)") {
      if (req.url ~ "[?&]rev=0*[0-9]{1,19}(&|$)") {
        set req.url = regsub(req.url, "\?(.*&)?rev=0*([0-9]{1,19})(&.*)?$", "?rev=\2");
      } elsif (req.url !~ "[?&]rev(=|&|$)") {
        set req.url = req.url.path;
      }
      set req.http.Flagcast-Kind = "flags";
    } elsif (req.url ~ "^/api/v1/flags/?(\?|$)") {
      # A single feature is somebody's own question, and so is what comes with credentials.
      if (req.url !~ {"\?.*(feature|%)"} && !req.http.Authorization) {
        call flagcast_list;
      }
    } elsif (req.url ~ "^/client\.js(\?|$)") {
      set req.url = "/client.js";
      set req.http.Flagcast-Kind = "file";
    }
  }
}

# A read whose environment is named by a header. The hash has the key.
sub flagcast_list {
  set req.url = "/api/v1/flags/";
  if (req.http.X-Environment-Key) {
    # Once only: the gateway and the hash must read the same key.
    set req.http.Flagcast-Environment = req.http.X-Environment-Key;
    unset req.http.X-Environment-Key;
    set req.http.X-Environment-Key = req.http.Flagcast-Environment;
    unset req.http.Flagcast-Environment;
  }
  set req.http.Flagcast-Kind = "list";
}

# The gateway compresses once per revision and encoding: three variants, not one for each wording.
sub flagcast_encoding {
  if (req.http.Accept-Encoding ~ "(^|[ ,])br([ ,;]|$)" ||
      req.http.Fastly-Orig-Accept-Encoding ~ "(^|[ ,])br([ ,;]|$)") {
    set req.http.Accept-Encoding = "br";
  } elsif (req.http.Accept-Encoding ~ "(^|[ ,])gzip([ ,;]|$)") {
    set req.http.Accept-Encoding = "gzip";
  } else {
    unset req.http.Accept-Encoding;
  }
}

# Without the host: one gateway may have many names.
sub vcl_hash {
#FASTLY hash
  set req.hash += req.url;
  if (req.http.Flagcast-Kind == "list") {
    set req.hash += req.http.X-Environment-Key;
  }
  return(hash);
}

sub vcl_hit {
#FASTLY hit
  return(deliver);
}

sub vcl_miss {
#FASTLY miss
  if (req.http.Flagcast-Kind == "stream") {
    # A compressed stream comes when it ends.
    unset bereq.http.Accept-Encoding;
  }
  return(fetch);
}

sub vcl_pass {
#FASTLY pass
  return(pass);
}

sub vcl_fetch {
#FASTLY fetch

  if (!req.http.Flagcast-Kind) {
    return(pass);
  }
  set beresp.stale_while_revalidate = 0s;
  set beresp.stale_if_error = 0s;
  unset beresp.http.Set-Cookie;

  if (beresp.status != 200) {
    # A herd costs one request a second.
    unset beresp.http.Vary;
    set beresp.cacheable = true;
    set beresp.ttl = 1s;
    return(deliver);
  }
  # The life is in the headers, and the `Age` of the tier behind is taken off already. It is set here
  # only where no header says it; Fastly would take an hour.
  if (beresp.http.Cache-Control !~ "max-?age=" ||
      beresp.http.Cache-Control ~ "no-store|no-cache|private") {
    set beresp.ttl = 0s;
  }
  if (req.http.Flagcast-Kind == "stream") {
    # Off by default, and the whole point.
    set beresp.do_stream = true;
    set beresp.gzip = false;
    set beresp.brotli = false;
    unset beresp.http.Vary;
    unset beresp.http.ETag;
    unset beresp.http.Last-Modified;
  } elsif (req.http.Flagcast-Kind == "list") {
    # `private` to every cache that may ignore `Vary`. The gateway allows it here by a word of its own,
    # for a second in each of two tiers: the echo comes behind both.
    if (beresp.http.Flagcast-Keep) {
      set beresp.cacheable = true;
      set beresp.ttl = 1s;
    }
    set beresp.http.Vary = "X-Environment-Key, Accept-Encoding";
  } else {
    set beresp.http.Vary = "Accept-Encoding";
  }
  if (beresp.ttl < 1s) {
    if (req.http.Flagcast-Kind == "stream" || req.url ~ "\?rev=") {
      # Whatever the gateway says: a stream for each client is the end of it, and a revision does
      # not change.
      set beresp.cacheable = true;
      set beresp.ttl = 1s;
    } elsif (beresp.ttl <= 0s) {
      # A gateway without an echo wants no read kept that a change makes old.
      set beresp.ttl = 1s;
      return(pass);
    }
  }
  return(deliver);
}

# For what the subroutines above refuse, and for a gateway that does not answer.
sub vcl_error {
#FASTLY error

  set obj.http.Access-Control-Allow-Origin = "*";
  if (obj.status == 604) {
    # What the gateway answers to a preflight.
    set obj.status = 204;
    set obj.response = "No Content";
    set obj.http.Access-Control-Allow-Methods = "GET, HEAD, POST, PUT, OPTIONS";
    set obj.http.Access-Control-Allow-Headers =
        "accept, authorization, baggage, cache-control, content-type, " +
        "flagsmith-application-name, flagsmith-application-version, flagsmith-sdk-user-agent, " +
        "if-none-match, last-event-id, origin, sentry-trace, traceparent, tracestate, user-agent, " +
        "x-api-key, x-csrftoken, x-environment-key, x-requested-with";
    set obj.http.Access-Control-Max-Age = "86400";
    synthetic {""};
    return(deliver);
  }
  set obj.http.Cache-Control = "no-store";
  set obj.http.Content-Type = "application/problem+json";
  if (obj.status == 605) {
    set obj.status = 405;
    set obj.response = "Method Not Allowed";
    set obj.http.Allow = "GET, OPTIONS";
  } elsif (obj.status == 606) {
    set obj.status = 400;
    set obj.response = "Bad Request";
  } elsif (req.http.Flagcast-Kind) {
    # A herd costs one attempt a second.
    set obj.ttl = 1s;
    set obj.http.Retry-After = "1";
  }
  if (req.http.Flagcast-Kind == "stream") {
    # Browsers obey `retry`, Python's SDK waits after an event that it cannot read, and nobody takes
    # this for a change.
    set obj.http.Content-Type = "text/event-stream";
    synthetic "retry: " + randomint(2000, 8000) + {"
data: {}

"};
    return(deliver);
  }
  synthetic {"{"type":"about:blank","status":"} + obj.status + {"}"};
  return(deliver);
}

sub vcl_deliver {
#FASTLY deliver

  if (fastly.ff.visits_this_service == 0) {
    # The outermost hop: what the tiers tell each other ends here. `Age` stays: between tiers it keeps
    # an edge from serving a stream that has ended, and clients do not mind it.
    if (!req.http.Fastly-Debug) {
      unset resp.http.Surrogate-Key;
      unset resp.http.Surrogate-Control;
    }
    unset resp.http.Flagcast-Keep;
    if (req.http.Flagcast-Kind == "stream" && resp.status != 200 &&
        (req.url ~ "^/ofrep/" || req.http.User-Agent ~ "^Mozilla/")) {
      # Browsers give up for ever after an error status, and obey `retry`. Flagsmith's SDKs do not
      # know `retry`; some of them come back at once after an empty stream, but wait after an error.
      set resp.status = 200;
      set resp.response = "OK";
      set resp.http.Content-Type = "text/event-stream";
    }
  }
  return(deliver);
}

sub vcl_log {
#FASTLY log
}
