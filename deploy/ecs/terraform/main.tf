# sigward's container for an ECS task definition of yours, and what the app's container needs beside it.
# tests/deploy/test_ecs_files.py holds it equal to the definitions that tests/deploy/test_ecs.py runs.

locals {
  by_proxy = var.way == "https-proxy"
  on_ec2   = var.launch_type == "EC2"
  trust    = "/var/lib/sigward-trust"
  state    = "/var/lib/sigward"

  listeners = { for index, service in var.services : service => 8081 + index }

  settings = merge(
    {
      AWS_REGION     = var.region
      SIGWARD_GRACE  = "${var.grace}s"
      SIGWARD_LISTEN = local.by_proxy ? "127.0.0.1:8080" : "off"
    },
    local.by_proxy ? { SIGWARD_TRUST_DIR = local.trust } : {
      SIGWARD_REVERSE = join(",", [
        for service in var.services : "127.0.0.1:${local.listeners[service]}=https://${service}.${var.region}.${var.domain}"
      ])
    },
    var.settings,
  )

  # The keys are dummies: they end the SDK's search for credentials before it finds the task role's.
  app_environment = merge(
    {
      AWS_REGION                = var.region
      AWS_DEFAULT_REGION        = var.region
      AWS_ACCESS_KEY_ID         = "SIGWARDDUMMYKEYID000"
      AWS_SECRET_ACCESS_KEY     = "sigward-signs-this-is-no-secret"
      AWS_EC2_METADATA_DISABLED = "true"
    },
    local.by_proxy ? {
      HTTPS_PROXY          = local.proxy
      https_proxy          = local.proxy
      HTTP_PROXY           = local.proxy
      http_proxy           = local.proxy
      NO_PROXY             = join(",", local.not_proxied)
      no_proxy             = join(",", local.not_proxied)
      NODE_USE_ENV_PROXY   = "1"
      PERL_LWP_ENV_PROXY   = "1"
      SSL_CERT_FILE        = "${local.trust}/bundle.pem"
      REQUESTS_CA_BUNDLE   = "${local.trust}/bundle.pem"
      CURL_CA_BUNDLE       = "${local.trust}/bundle.pem"
      AWS_CA_BUNDLE        = "${local.trust}/bundle.pem"
      PIP_CERT             = "${local.trust}/bundle.pem"
      CARGO_HTTP_CAINFO    = "${local.trust}/bundle.pem"
      GIT_SSL_CAINFO       = "${local.trust}/bundle.pem"
      PERL_LWP_SSL_CA_FILE = "${local.trust}/bundle.pem"
      NODE_EXTRA_CA_CERTS  = "${local.trust}/ca.pem"
      DENO_CERT            = "${local.trust}/ca.pem"
      PHP_INI_SCAN_DIR     = ":${local.trust}"
      WGETRC               = "${local.trust}/wgetrc"
      WGET2RC              = "${local.trust}/wget2rc"
      JAVA_TOOL_OPTIONS    = local.java_options
    } : { for service, port in local.listeners : "AWS_ENDPOINT_URL_${upper(replace(service, "-", "_"))}" => "http://127.0.0.1:${port}" },
  )
  proxy       = "http://127.0.0.1:8080"
  not_proxied = ["localhost", "127.0.0.1", "127.0.0.0/8", "::1", "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23"]

  # Java reads no proxy variable and no PEM file.
  java_options = join(" ", [
    "-Djavax.net.ssl.trustStore=${local.trust}/truststore.p12",
    "-Djavax.net.ssl.trustStoreType=PKCS12",
    "-Djavax.net.ssl.trustStorePassword=changeit",
    "-Dhttps.proxyHost=127.0.0.1",
    "-Dhttps.proxyPort=8080",
    "-Dhttp.proxyHost=127.0.0.1",
    "-Dhttp.proxyPort=8080",
    "-Dhttp.nonProxyHosts=${join("|", concat(["127.*"], [for host in local.not_proxied : strcontains(host, ":") ? "[${host}]" : host if !strcontains(host, "/")]))}",
  ])

  # Fargate knows no tmpfs; there the CA's key lies on the task's own volume, which ends with it.
  mounts = concat(
    local.on_ec2 ? [] : [{ sourceVolume = "sigward-state", containerPath = local.state, readOnly = false }],
    local.by_proxy ? [{ sourceVolume = "sigward-trust", containerPath = local.trust, readOnly = false }] : [],
  )
  tmpfs = {
    containerPath = local.state
    size          = 256
    mountOptions  = ["uid=65532", "gid=65532", "mode=0700", "noexec", "nosuid", "nodev"]
  }

  container = merge(
    {
      name                   = "sigward"
      image                  = var.image
      essential              = true
      cpu                    = var.cpu
      memory                 = var.memory
      memoryReservation      = 64
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      linuxParameters        = merge({ capabilities = { drop = ["ALL"] } }, local.on_ec2 ? { tmpfs = [local.tmpfs] } : {})
      environment            = [for name, value in local.settings : { name = name, value = value }]
      healthCheck            = { command = ["CMD", "sigward", "healthcheck"], interval = 5, timeout = 5, retries = 3, startPeriod = 10 }
      stopTimeout            = var.grace + 10
      dockerLabels           = { "sigward.test" = "tests/deploy/test_ecs.py" }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          "awslogs-group"         = var.log_group
          "awslogs-region"        = var.region
          "awslogs-stream-prefix" = "sigward"
        }
      }
    },
    local.on_ec2 ? { dockerSecurityOptions = ["no-new-privileges"] } : {},
    length(local.mounts) > 0 ? { mountPoints = local.mounts } : {},
    length(var.secrets) > 0 ? { secrets = [for name, arn in var.secrets : { name = name, valueFrom = arn }] } : {},
  )
}
