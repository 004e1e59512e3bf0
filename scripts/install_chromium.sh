#!/usr/bin/env bash
# Installs Debian's Chromium for tests/browser, unless there is one.
set -euo pipefail

[[ -x /usr/bin/chromium ]] && exit
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
