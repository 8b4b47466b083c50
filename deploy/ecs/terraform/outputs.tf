output "container" {
  description = "sigward's container definition, for `container_definitions = jsonencode([module.sigward.container, …])`."
  value       = local.container
}

output "app_environment" {
  description = "The app container's `environment`."
  value       = [for name, value in local.app_environment : { name = name, value = value }]
}

output "app_depends_on" {
  description = "The app container's `dependsOn`."
  value       = [{ containerName = "sigward", condition = "HEALTHY" }]
}

output "app_mount_points" {
  description = "The app container's `mountPoints`: what it trusts, to be read."
  value       = local.by_proxy ? [{ sourceVolume = "sigward-trust", containerPath = local.trust, readOnly = true }] : []
}

output "volumes" {
  description = "Names of the volumes that the task needs."
  value       = [for mount in local.mounts : mount.sourceVolume]
}
