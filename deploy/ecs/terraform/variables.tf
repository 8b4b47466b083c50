variable "image" {
  description = "sigward's image, in a registry of yours."
  type        = string
}

variable "region" {
  description = "The AWS region that the app calls, and that the logs go to."
  type        = string
}

variable "launch_type" {
  description = "FARGATE or EC2: where the task runs."
  type        = string
  default     = "FARGATE"

  validation {
    condition     = contains(["FARGATE", "EC2"], var.launch_type)
    error_message = "launch_type: FARGATE or EC2."
  }
}

variable "way" {
  description = "How the app's calls reach sigward: endpoint-url needs no trust, https-proxy takes programs that know no endpoint URLs."
  type        = string
  default     = "endpoint-url"

  validation {
    condition     = contains(["endpoint-url", "https-proxy"], var.way)
    error_message = "way: endpoint-url or https-proxy."
  }
}

variable "services" {
  description = "endpoint-url: the services that the app calls, as in AWS_ENDPOINT_URL_NAME and NAME.REGION.DOMAIN. The first is served on port 8081, the next on 8082, …"
  type        = list(string)
  default     = ["dynamodb", "s3", "sqs", "sts"]
}

variable "domain" {
  description = "What AWS's host names end with in the partition: amazonaws.com, amazonaws.com.cn."
  type        = string
  default     = "amazonaws.com"
}

variable "log_group" {
  description = "CloudWatch log group of the task."
  type        = string
}

variable "grace" {
  description = "Seconds that requests under way have to end when the task stops. The container is given ten more."
  type        = number
  default     = 20

  validation {
    condition     = var.grace >= 0 && var.grace <= 110
    error_message = "grace: 0 to 110 seconds; ECS gives a container 120 at most."
  }
}

variable "cpu" {
  description = "CPU units of sigward's container."
  type        = number
  default     = 64
}

variable "memory" {
  description = "MiB that sigward's container may take; it idles at about 50."
  type        = number
  default     = 192
}

variable "settings" {
  description = "More settings, by variable: SIGWARD_ACCESS_LOG = \"stderr\". See docs/settings.md."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Settings that ECS takes from Secrets Manager or Parameter Store: the variable's name to the secret's ARN."
  type        = map(string)
  default     = {}
}
