# What the gateway needs to know of the service.

output "service" {
  description = "For the gateway's `cdn.fastly_service`, with `cdn.purge = \"fastly\"`."
  value       = fastly_service_vcl.flagcast.id
}

output "public_url" {
  description = "For the gateway's `server.public_url`."
  value       = "https://${var.domain}"
}

output "version" {
  description = "The service version that is active."
  value       = fastly_service_vcl.flagcast.active_version
}
