# The Fastly service in front of a Flagcast gateway.
#
# Owns what is not VCL: names, pools of connections, the shield, timeouts, and which kind of request
# goes to which pool. `flagcast.vcl` says what a kind is.

terraform {
  required_version = ">= 1.5"

  required_providers {
    fastly = {
      source  = "fastly/fastly"
      version = "~> 8.0"
    }
  }
}

resource "fastly_service_vcl" "flagcast" {
  name = var.name

  domain {
    name = var.domain
  }

  # One gateway, three pools: streams stay open and must not use up the connections of reads, and
  # neither must wait for management or evaluation. All of them go through the shield, or each of
  # Fastly's locations would open its own streams. No health checks: with one gateway there is nowhere
  # else to go, and an error costs it one request a second anyway.

  backend {
    name              = "streams"
    request_condition = "is a stream"
    address           = var.origin
    port              = var.origin_port
    override_host     = var.origin
    shield            = var.shield
    # Two for each environment: a stream and the next one.
    max_conn        = 2 * var.environments
    connect_timeout = 1000
    # The first event comes with the head.
    first_byte_timeout = 5000
    # Six heartbeats (`stream.cached_heartbeat_seconds`). It must never strike: Fastly says that it
    # then takes the stream for complete, and would replay it.
    between_bytes_timeout = 30000
    use_ssl               = true
    ssl_cert_hostname     = var.origin
    ssl_sni_hostname      = var.origin
  }

  backend {
    name                  = "flags"
    request_condition     = "is a shared read"
    address               = var.origin
    port                  = var.origin_port
    override_host         = var.origin
    shield                = var.shield
    max_conn              = 200
    connect_timeout       = 1000
    first_byte_timeout    = 5000
    between_bytes_timeout = 5000
    use_ssl               = true
    ssl_cert_hostname     = var.origin
    ssl_sni_hostname      = var.origin
  }

  # Everything else: the one without a condition.
  backend {
    name                  = "others"
    address               = var.origin
    port                  = var.origin_port
    override_host         = var.origin
    shield                = var.shield
    max_conn              = 200
    connect_timeout       = 1000
    first_byte_timeout    = 60000
    between_bytes_timeout = 30000
    use_ssl               = true
    ssl_cert_hostname     = var.origin
    ssl_sni_hostname      = var.origin
  }

  condition {
    name      = "is a stream"
    type      = "REQUEST"
    statement = "req.http.Flagcast-Kind == \"stream\""
  }

  condition {
    name      = "is a shared read"
    type      = "REQUEST"
    statement = "req.http.Flagcast-Kind && req.http.Flagcast-Kind != \"stream\""
  }

  # Client keys are public, management tokens are not.
  request_setting {
    name      = "TLS only"
    force_ssl = true
  }

  vcl {
    name    = "flagcast"
    main    = true
    content = file("${path.module}/flagcast.vcl")
  }

  # Not here, because each of them ends the collapse or holds events back: `gzip`, brotli compression,
  # segmented caching, stale answers (`stale_if_error`), Image Optimizer.
  stale_if_error = false
}
