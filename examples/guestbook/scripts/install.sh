#!/bin/sh
set -eu
systemctl daemon-reload
systemctl enable guestbook.service
