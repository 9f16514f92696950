# What differs from one installation to the next.

variable "name" {
  description = "Name of the Fastly service."
  type        = string
  default     = "flagcast"
}

variable "domain" {
  description = "Host name that clients use; the gateway's `server.public_url` is https:// and this."
  type        = string
}

variable "origin" {
  description = "Host name of the gateway as Fastly reaches it, with a certificate for that name."
  type        = string
}

variable "origin_port" {
  description = "Port of the gateway's TLS."
  type        = number
  default     = 443
}

variable "shield" {
  description = "Fastly location near the gateway through which all others go, such as \"frankfurt-de\"."
  type        = string

  validation {
    condition     = length(var.shield) > 0
    error_message = "Without a shield every Fastly location opens streams of its own."
  }
}

variable "environments" {
  description = "How many environments may have subscribers at once; the gateway gets up to two streams of each."
  type        = number
  default     = 250

  validation {
    condition     = var.environments >= 1
    error_message = "At least one environment."
  }
}
