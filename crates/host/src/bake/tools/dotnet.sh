# A version of .NET, as the system has it.
set -eu
apt-get update -q
apt-get install -qy --no-install-recommends "dotnet-sdk-$VERSION"
