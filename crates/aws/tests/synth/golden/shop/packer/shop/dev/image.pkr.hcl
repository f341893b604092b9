variable "region" {
  type        = string
  description = "Where the image is made."
}

variable "subnet" {
  type        = string
  description = "A subnet from which the internet can be reached."
}

variable "profile" {
  type        = string
  description = "The instance profile by which Session Manager reaches the host."
}

variable "key" {
  type        = string
  description = "The foundation's key, by its ARN."
}

variable "commit" {
  type        = string
  description = "The commit that the scripts are of."
}

variable "author" {
  type        = string
  description = "Who wrote it."
  default     = ""
}

variable "message" {
  type        = string
  description = "What it says."
  default     = ""
}

variable "branch" {
  type        = string
  description = "The branch that was pushed."
  default     = ""
}

variable "inputs" {
  type        = string
  description = "The digest of all that the image is made of."
  default     = ""
}

variable "accounts" {
  type        = list(string)
  description = "Accounts that may start hosts from the image."
  default     = []
}

# The timestamp makes each image's name its own.
locals {
  name = "vend-shop-dev-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  tags = {
    "vend:platform"    = "vend"
    "vend:app"         = "shop"
    "vend:environment" = "dev"
    "vend:commit"      = var.commit
    "vend:author"      = substr(var.author, 0, 256)
    "vend:message"     = substr(replace(var.message, "/[^A-Za-z0-9 _.:=+@-]/", " "), 0, 256)
  }
}

# Who bakes changes and takes away what was made so, and nothing else.
locals {
  made = merge(local.tags, { "vend:bake" = "vend/shop" })
}

source "amazon-ebs" "image" {
  region                      = var.region
  subnet_id                   = var.subnet
  associate_public_ip_address = false
  instance_type               = "t4g.small"
  iam_instance_profile        = var.profile
  communicator                = "ssh"
  ssh_interface               = "session_manager"
  ssh_username                = "admin"
  ami_name                    = local.name
  ami_description             = "Commit ${var.commit}"
  ami_users                   = var.accounts
  snapshot_users              = var.accounts
  ena_support                 = true
  encrypt_boot                = true
  kms_key_id                  = var.key
  shutdown_behavior           = "terminate"

  # What it is copied from has the tags of the host: none is found by its inputs but the image that is finished.
  tags            = merge(local.tags, { "vend:inputs" = var.inputs })
  snapshot_tags   = local.tags
  run_tags        = local.made
  run_volume_tags = local.made

  # No port is open: the script puts Session Manager's agent on the base, which answers by the profile.
  user_data_file                        = "vend/agents.sh"
  temporary_security_group_source_cidrs = ["127.0.0.1/32"]

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = 10
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
  }

  source_ami_filter {
    filters = {
      name                = "debian-12-arm64-*"
      architecture        = "arm64"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
    owners      = ["136693071363"]
    most_recent = true
  }
}

build {
  sources = ["source.amazon-ebs.image"]

  # What hosts on AWS have beside the app: CodeDeploy's agent, CloudWatch's, the command line, jq.
  provisioner "shell" {
    execute_command  = "sudo -n env {{ .Vars }} bash '{{ .Path }}'"
    environment_vars = ["ARCHITECTURE=arm64", "REGION=${var.region}"]
    script           = "vend/host.sh"
  }

  # The files that the scripts see, as `image.inputs` names them.
  provisioner "file" {
    source      = "vend/inputs.tar"
    destination = "/tmp/inputs.tar"
  }

  provisioner "shell" {
    inline = ["sudo install -d /srv/vend/source", "sudo tar -xf /tmp/inputs.tar -C /srv/vend/source", "rm /tmp/inputs.tar"]
  }

  provisioner "shell" {
    environment_vars = [
      "DEBIAN_FRONTEND=noninteractive",
      "VEND_TENANT=vend",
      "VEND_APP=shop",
      "VEND_ENVIRONMENT=dev",
      "VEND_COMMIT_ID=${var.commit}",
      "VEND_COMMIT_AUTHOR=${var.author}",
      "VEND_COMMIT_MESSAGE=${var.message}",
      "VEND_COMMIT_BRANCH=${var.branch}",
      "VEND_COMMIT_REPOSITORY=https://github.com/acme/shop.git",
    ]
    execute_command = "chmod +x {{ .Path }}; sudo -H env {{ .Vars }} /bin/sh {{ .Path }}"
    inline          = ["cd /srv/vend/source && chmod 755 'infra/preInstall.sh' && ./'infra/preInstall.sh'"]
  }

  provisioner "shell" {
    environment_vars = [
      "DEBIAN_FRONTEND=noninteractive",
      "VEND_TENANT=vend",
      "VEND_APP=shop",
      "VEND_ENVIRONMENT=dev",
      "VEND_COMMIT_ID=${var.commit}",
      "VEND_COMMIT_AUTHOR=${var.author}",
      "VEND_COMMIT_MESSAGE=${var.message}",
      "VEND_COMMIT_BRANCH=${var.branch}",
      "VEND_COMMIT_REPOSITORY=https://github.com/acme/shop.git",
    ]
    execute_command = "chmod +x {{ .Path }}; sudo -H env {{ .Vars }} /bin/sh {{ .Path }}"
    inline          = ["cd /srv/vend/source && chmod 755 'infra/install.sh' && ./'infra/install.sh'"]
  }

  # An image is nobody's yet: no keys, no identity, no history.
  provisioner "shell" {
    inline = ["sudo rm -rf /srv/vend/source /etc/ssh/ssh_host_* /root/.ssh /home/admin/.ssh /var/lib/cloud/instances", "sudo truncate -s 0 /etc/machine-id"]
  }

  post-processor "manifest" {
    output     = "manifest.json"
    strip_path = true
    custom_data = {
      commit = var.commit
      inputs = var.inputs
    }
  }
}
