#!/bin/sh
set -eu
systemctl restart guestbook.service
