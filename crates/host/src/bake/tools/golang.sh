# A version of Go, as the system has it.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends "golang-$VERSION-go"
ln -sfn "/usr/lib/go-$VERSION/bin/go" "/usr/lib/go-$VERSION/bin/gofmt" /usr/local/bin/
